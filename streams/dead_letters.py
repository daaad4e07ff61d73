"""Dead letters: records that cannot be processed, kept with their reason and original bytes."""

from __future__ import annotations

from models.errors import Poison
from streams.chunks import Record
from streams.topics import OUTPUT_BYTES
from streams.transactions import Output

# Headers that a dead letter adds behind the record's own.
CODE = "cqrs-dead-code"
REASON = "cqrs-dead-reason"
SOURCE_TOPIC = "cqrs-source-topic"
SOURCE_PARTITION = "cqrs-source-partition"
SOURCE_OFFSET = "cqrs-source-offset"
SOURCE_TIMESTAMP = "cqrs-source-timestamp"


CUT = "cqrs-dead-cut"

# The broker's limit is for a batch with its envelope, and is applied after compression: a small
# compressed command can be larger than any dead letter.
_MOST_BYTES = OUTPUT_BYTES - 64 * 1024


def dead_letter(record: Record, poison: Poison) -> Output:
    """The record's own key, value and headers, and why and where it came from.

    A record that is too large for that loses its headers and the end of its value; ``CUT`` then
    has the value's length. The whole record stays at its source until retention ends.
    """
    value, headers = record.value, list(record.headers)
    size = len(record.key or b"") + len(value or b"")
    size += sum(len(name.encode()) + len(one or b"") for name, one in headers)
    if size > _MOST_BYTES:
        headers = [(CUT, str(len(value or b"")).encode())]
        value = (value or b"")[: _MOST_BYTES - len(record.key or b"")]
    return Output(
        record.key,
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
