"""Dead letters: records that cannot be processed, kept with their reason and original bytes."""

from __future__ import annotations

from models.errors import Poison
from streams.chunks import Record
from streams.transactions import Output

# Headers that a dead letter adds behind the record's own.
CODE = "cqrs-dead-code"
REASON = "cqrs-dead-reason"
SOURCE_TOPIC = "cqrs-source-topic"
SOURCE_PARTITION = "cqrs-source-partition"
SOURCE_OFFSET = "cqrs-source-offset"
SOURCE_TIMESTAMP = "cqrs-source-timestamp"


def dead_letter(record: Record, poison: Poison) -> Output:
    """The record's own key, value and headers, and why and where it came from."""
    return Output(
        record.key,
        record.value,
        [
            *record.headers,
            (CODE, poison.code.encode()),
            (REASON, poison.reason.encode()),
            (SOURCE_TOPIC, record.topic.encode()),
            (SOURCE_PARTITION, str(record.partition).encode()),
            (SOURCE_OFFSET, str(record.offset).encode()),
            (SOURCE_TIMESTAMP, str(record.timestamp).encode()),
        ],
    )
