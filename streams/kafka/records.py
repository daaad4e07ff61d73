"""Records as they are read from Kafka: their source, time and size, and the key of a reply."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import lru_cache

import msgspec

from models.errors import Poison
from models.messages import Source

# The last millisecond of the year 9999, the end of `datetime`.
_LATEST_MS = 253402300799999

# Longest aggregate id: 128 characters (`models/validation.py`) of up to 4 bytes.
_MAX_KEY_BYTES = 512

# Bytes of memory that a header takes beside those of its name and its value.
_HEADER_BYTES = 100


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as every consumer of ours returns it.

    It is built in a quarter of the time of aiokafka's, which has more fields.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    unreadable: Poison | None = None
    """Why it has neither key nor value nor headers; see `streams/kafka/batches.py`."""


def size_of(records: Sequence[Record]) -> int:
    """Return the size of all keys, values and headers in bytes of memory, roughly."""
    return sum(len(one.key or b"") + len(one.value or b"") for one in records) + sum(
        _HEADER_BYTES + len(name) + len(value or b"")
        for one in records
        if one.headers
        for name, value in one.headers
    )


def reply_key(record: Record) -> bytes | None:
    """Return the key for the outcome or dead letter of a record: its own key, cut if it is long.

    No aggregate id is longer than what is kept. A compressed record may have a key that is too
    large to be written again.
    """
    return None if record.key is None else record.key[:_MAX_KEY_BYTES]


def cut_key(key: bytes) -> bytes:
    """Return as much of a key as an aggregate id can have."""
    return key[:_MAX_KEY_BYTES]


def time_of(record: Record) -> datetime:
    """Return the record's timestamp, or the nearest time from 1970 to 9999 if it is outside."""
    return _time(record.timestamp)


@lru_cache(maxsize=256)  # consecutive records are often of the same millisecond
def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(min(max(milliseconds, 0), _LATEST_MS) / 1000, timezone.utc)


def source_of(record: Record) -> Source:
    """Return the topic, partition and offset of the record."""
    return Source(record.topic, record.partition, record.offset)
