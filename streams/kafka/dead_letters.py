"""Dead letters: records that cannot be processed, kept with their reason and original bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from models.errors import Poison
from streams.kafka.records import Record, reply_key
from streams.kafka.topics import OUTPUT_BYTES
from streams.kafka.transactions import OutputRecord

# Headers that a dead letter has after those of the record.
CODE = "cqrs-dead-code"
REASON = "cqrs-dead-reason"
SOURCE_TOPIC = "cqrs-source-topic"
SOURCE_PARTITION = "cqrs-source-partition"
SOURCE_OFFSET = "cqrs-source-offset"
SOURCE_TIMESTAMP = "cqrs-source-timestamp"

# Header of a dead letter of a view: the view's name.
VIEW = "cqrs-view"

# Headers of a dead letter that was cut: bytes of the original value and of the original key.
CUT = "cqrs-dead-cut"
CUT_KEY = "cqrs-dead-cut-key"

# Header of a dead letter that is sealed with the data key of the aggregate in its key. `_WHOLE`:
# its value is the record's value and headers, sealed; that of older versions is the value alone.
SEALED = "cqrs-dead-sealed"
_WHOLE = b"2"

# Header of a dead letter without the record's value and headers, because the data key that they
# would be sealed with is not in its partition: bytes of the value. The whole record stays on its
# topic until retention removes it.
WITHHELD = "cqrs-dead-withheld"

# The broker's limit is for a batch with its envelope, and is applied after compression: a command
# that was small when compressed can be larger than any dead letter.
_MAX_BYTES = OUTPUT_BYTES - 64 * 1024

Headers = Sequence[tuple[str, bytes | None]]
_CONTENT = msgspec.msgpack.Decoder(tuple[bytes | None, list[tuple[str, bytes | None]]])

# Most bytes of a header's two length fields. Millions of empty headers add up.
_HEADER_OVERHEAD_BYTES = 10


def dead_letter(record: Record, poison: Poison) -> OutputRecord:
    """Build the dead letter of a record: its key, value and headers, the reason and its source.

    If that is too large, the headers are left out, the value is cut, and the key is cut to the
    longest possible aggregate id; ``CUT`` and ``CUT_KEY`` then hold the original lengths. The whole
    record stays on its topic until retention removes it.
    """
    key, value, headers = record.key, record.value, list(record.headers)
    size = len(key or b"") + len(value or b"")
    size += sum(
        _HEADER_OVERHEAD_BYTES + len(name.encode()) + len(one or b"") for name, one in headers
    )
    cut = []
    if size > _MAX_BYTES:
        headers, cut = [], [(CUT, _length(value)), (CUT_KEY, _length(key))]
        key = reply_key(record)
        value = None if value is None else value[: _MAX_BYTES - len(key or b"")]
    return OutputRecord(
        key,
        value,
        [
            *headers,
            (CODE, poison.code.encode()),
            (REASON, poison.reason.encode()),
            (SOURCE_TOPIC, record.topic.encode()),
            (SOURCE_PARTITION, str(record.partition).encode()),
            (SOURCE_OFFSET, str(record.offset).encode()),
            (SOURCE_TIMESTAMP, str(record.timestamp).encode()),
            *cut,
        ],
    )


def sealed_letter(plain: OutputRecord, seal: Callable[[bytes], bytes]) -> OutputRecord:
    """Return the dead letter with the record's value and headers sealed, and a header for that."""
    of_record, own = _split(plain.headers)
    sealed = seal(msgspec.msgpack.encode((plain.value, of_record)))
    return OutputRecord(plain.key, sealed, [*own, (SEALED, _WHOLE)])


def is_sealed(headers: Headers) -> bool:
    """Whether these headers are those of a sealed dead letter.

    A header of the record does not count, whatever its producer calls it.
    """
    return SEALED in dict(_split(headers)[1])


def opened_letter(
    value: bytes, headers: Headers, open_: Callable[[bytes], bytes]
) -> tuple[bytes | None, Headers]:
    """Return value and headers of a sealed dead letter as they were before it was sealed."""
    of_record, own = _split(headers)
    others = [header for header in own if header[0] != SEALED]
    content = open_(value)
    if dict(own)[SEALED] != _WHOLE:
        return content, [*of_record, *others]
    plain, of_record = _CONTENT.decode(content)
    return plain, [*of_record, *others]


def withheld_letter(plain: OutputRecord) -> OutputRecord:
    """Return the dead letter without the record's value and headers, and a header for that."""
    _, own = _split(plain.headers)
    return OutputRecord(plain.key, None, [*own, (WITHHELD, _length(plain.value))])


def _split(headers: Headers) -> tuple[Headers, Headers]:
    """Return the record's headers, and those that a dead letter has in addition.

    A record may have been a dead letter itself.
    """
    codes = [number for number, (name, _) in enumerate(headers) if name == CODE]
    begin = codes[-1] if codes else len(headers)
    return headers[:begin], headers[begin:]


def _length(part: bytes | None) -> bytes:
    return str(len(part or b"")).encode()
