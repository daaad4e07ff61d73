"""Dead letters: records that cannot be processed, kept with their reason and original bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from models.errors import Poison
from models.messages import Source
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

# Header of a command that was parked before: offset of the record that ended it.
DECIDED_BY = "cqrs-decided-by"

# Header of a record that says that a dead letter of its partition was sent again: its offset.
SENT_AGAIN = "cqrs-sent-again"

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

OWN_HEADERS = frozenset(
    {
        *(CODE, REASON, SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET, SOURCE_TIMESTAMP),
        *(DECIDED_BY, SENT_AGAIN, VIEW, CUT, CUT_KEY, SEALED, WITHHELD),
    }
)
"""Names of all headers that this module writes. A record that was sent again has some of them."""

# The broker's limit is for a batch with its envelope, and is applied after compression: a command
# that was small when compressed can be larger than any dead letter.
_MAX_BYTES = OUTPUT_BYTES - 64 * 1024

Headers = Sequence[tuple[str, bytes | None]]
_CONTENT = msgspec.msgpack.Decoder(tuple[bytes | None, list[tuple[str, bytes | None]]])

# Most bytes of a header's two length fields. Millions of empty headers add up.
_HEADER_OVERHEAD_BYTES = 10


def dead_letter(record: Record, poison: Poison, by: Record | None = None) -> OutputRecord:
    """Build the dead letter of a record: its key, value and headers, the reason and its source.

    `by` is the record in whose turn it was decided, if it was parked until then.

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
            *([] if by is None or by is record else [(DECIDED_BY, str(by.offset).encode())]),
            *cut,
        ],
    )


def dead_letter_source(record: Record) -> Source | None:
    """Return the source of the command in a dead letter; None if its headers do not say it."""
    headers = dict(record.headers)
    try:
        return Source(
            (headers[SOURCE_TOPIC] or b"").decode(errors="replace"),
            int(headers[SOURCE_PARTITION] or b""),
            int(headers[SOURCE_OFFSET] or b""),
        )
    except (KeyError, ValueError):
        return None


def decided_at(record: Record, source: Source) -> int:
    """Return the offset of the record in whose turn the command of a dead letter was decided.

    A header of the command does not count, whatever its producer calls it.
    """
    _, own = split_headers(record.headers)
    try:
        return int(dict(own)[DECIDED_BY] or b"")
    except (KeyError, ValueError):
        return source.offset


def marker(letter: Record) -> OutputRecord:
    """Build the record that says, on the topic of a dead letter, that it was sent again."""
    return OutputRecord(reply_key(letter), None, [(SENT_AGAIN, str(letter.offset).encode())])


def is_marker(record: Record) -> bool:
    """Return whether a record of the topic is no dead letter, but says that one was sent again.

    The headers of a command's record are only on its dead letter, which has a code.
    """
    names = [name for name, _ in record.headers]
    return record.value is None and SENT_AGAIN in names and CODE not in names


def marked_offset(record: Record) -> int | None:
    """Return the offset of the dead letter that was sent again; None if the record is no marker."""
    try:
        return int(dict(record.headers)[SENT_AGAIN] or b"") if is_marker(record) else None
    except ValueError:
        return None


def sealed_letter(plain: OutputRecord, seal: Callable[[bytes], bytes]) -> OutputRecord:
    """Return the dead letter with the record's value and headers sealed, and a header for that."""
    of_record, own = split_headers(plain.headers)
    sealed = seal(msgspec.msgpack.encode((plain.value, of_record)))
    return OutputRecord(plain.key, sealed, [*own, (SEALED, _WHOLE)])


def is_sealed(headers: Headers) -> bool:
    """Whether these headers are those of a sealed dead letter.

    A header of the record does not count, whatever its producer calls it.
    """
    return SEALED in dict(split_headers(headers)[1])


def opened_letter(
    value: bytes, headers: Headers, open_: Callable[[bytes], bytes]
) -> tuple[bytes | None, Headers]:
    """Return value and headers of a sealed dead letter as they were before it was sealed."""
    of_record, own = split_headers(headers)
    others = [header for header in own if header[0] != SEALED]
    content = open_(value)
    if dict(own)[SEALED] != _WHOLE:
        return content, [*of_record, *others]
    plain, of_record = _CONTENT.decode(content)
    return plain, [*of_record, *others]


def withheld_letter(plain: OutputRecord) -> OutputRecord:
    """Return the dead letter without the record's value and headers, and a header for that."""
    _, own = split_headers(plain.headers)
    return OutputRecord(plain.key, None, [*own, (WITHHELD, _length(plain.value))])


def split_headers(headers: Headers) -> tuple[Headers, Headers]:
    """Return the record's headers, and those that a dead letter has in addition.

    A record may have been a dead letter itself.
    """
    codes = [number for number, (name, _) in enumerate(headers) if name == CODE]
    begin = codes[-1] if codes else len(headers)
    return headers[:begin], headers[begin:]


def _length(part: bytes | None) -> bytes:
    return str(len(part or b"")).encode()
