"""Dead letters: records that cannot be processed, kept with their reason and original bytes."""

from __future__ import annotations

from models.errors import Poison
from streams.kafka.records import Record, reply_key
from streams.kafka.topics import OUTPUT_BYTES
from streams.kafka.transactions import OutputRecord

# Headers that a dead letter adds behind the record's own.
CODE = "cqrs-dead-code"
REASON = "cqrs-dead-reason"
SOURCE_TOPIC = "cqrs-source-topic"
SOURCE_PARTITION = "cqrs-source-partition"
SOURCE_OFFSET = "cqrs-source-offset"
SOURCE_TIMESTAMP = "cqrs-source-timestamp"

# Of a view's: which view could not take it.
VIEW = "cqrs-view"

# Headers of one that was cut: how many bytes its value and its key had.
CUT = "cqrs-dead-cut"
CUT_KEY = "cqrs-dead-cut-key"

# Header of one whose value is sealed with the key of the aggregate that its key names.
SEALED = "cqrs-dead-sealed"

# The broker's limit is for a batch with its envelope, and is applied after compression: a small
# compressed command can be larger than any dead letter.
_MOST_BYTES = OUTPUT_BYTES - 64 * 1024
_HEADER_BYTES = 10  # the lengths of a header's two parts, at most; millions of empty ones add up


def dead_letter(record: Record, poison: Poison) -> OutputRecord:
    """The record's own key, value and headers, and why and where it came from.

    A record that is too large for that loses its headers, the end of its value, and of its key
    what no aggregate id has; ``CUT`` and ``CUT_KEY`` then say how long the two were. The whole
    record stays at its source until retention ends.
    """
    key, value, headers = record.key, record.value, list(record.headers)
    size = len(key or b"") + len(value or b"")
    size += sum(_HEADER_BYTES + len(name.encode()) + len(one or b"") for name, one in headers)
    if size > _MOST_BYTES:
        headers = [(CUT, _length(value)), (CUT_KEY, _length(key))]
        key = reply_key(record)
        value = None if value is None else value[: _MOST_BYTES - len(key or b"")]
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
        ],
    )


def sealed_letter(letter: OutputRecord, value: bytes) -> OutputRecord:
    """The same with its value sealed, and a header that says so."""
    return OutputRecord(letter.key, value, [*letter.headers, (SEALED, b"1")])


def _length(part: bytes | None) -> bytes:
    return str(len(part or b"")).encode()
