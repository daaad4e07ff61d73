"""Stores for the state of one partition, and how the changelog records a position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import msgspec
from faust.types import TP

from streams.state.failure_window import FailureWindow

# Keys that start with this byte are no aggregate ids, which contain no control characters.
RESERVED = b"\x00"


def position_key(tp: TP) -> bytes:
    """Return the changelog's key for the position in an input partition."""
    return RESERVED + f"position {tp.topic} {tp.partition}".encode()


UNREADABLE_KEY = RESERVED + b"unreadable"
"""A store's own key, in no changelog: see `StateStore.unreadable_to`."""


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next offset to read of an input partition, its topic, and the version of the state."""

    offset: int = msgspec.field(name="position")

    topic_id: str | None = msgspec.field(default=None, name="topic")
    """Id of the topic (`topic_ids`); None if an older version wrote this."""

    partitions: int | None = None
    """Number of partitions of the topic; None if an older version wrote this."""

    state: str | None = None
    """Version of the state (`streams/state/version.py`); None if an older program wrote this."""

    complete_from: int = msgspec.field(default=0, name="completeFrom")
    """Offset of the changelog from which on the states are complete: they were rebuilt from the
    events, because a record before it cannot be read, whose key may be that of a state."""

    recent: FailureWindow | None = None
    """How many of the last commands failed; None without `CQRS_DEAD_LETTER_LIMIT`."""

    # The first offsets of what this topic caused; before them is what a former topic of the same
    # name caused (`cqrs topics adopt`).
    events_from: int = msgspec.field(default=0, name="events")
    outcomes_from: int = msgspec.field(default=0, name="outcomes")
    dead_letters_from: int = msgspec.field(default=0, name="deadLetters")


_decode = msgspec.json.Decoder(Position).decode


def encode_position(position: Position) -> bytes:
    """Encode a position as a value of the changelog."""
    return msgspec.json.encode(position)


def decode_position(value: bytes) -> Position:
    """Decode what `encode_position` returned, in this version or an older one."""
    return _decode(value)


class StateStore(ABC):
    """State of one partition: the record of each aggregate as bytes, by the aggregate's id.

    It contains only what was committed. Iterating yields the ids.
    """

    @property
    @abstractmethod
    def end(self) -> int:
        """Changelog offset up to which the store is complete (exclusive)."""

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """Return the record of an aggregate, or None if there is none."""

    @abstractmethod
    def position(self, tp: TP) -> Position | None:
        """Return the position in an input partition that belongs to this state, if there is one."""

    @abstractmethod
    def reserved(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the reserved keys that begin with this, which begins with `RESERVED`."""

    @property
    def unreadable_to(self) -> int:
        """Offset after the last record of the changelog that could not be read; 0 if there is none.

        It stays with what was restored: who opens the store again does not see that record.
        """
        return max((int(value) for _, value in self.reserved(UNREADABLE_KEY)), default=0)

    @abstractmethod
    def apply(self, changes: Mapping[bytes, bytes | None], end: int) -> None:
        """Apply records of the changelog that were committed, all or nothing.

        Args:
            changes: the last value of each key; None deletes the key.
            end: the changelog offset after these records (exclusive).
        """

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def approximate_len(self) -> int:
        """Return about how many aggregates it has, in a microsecond; none if it cannot be used."""

    @abstractmethod
    def close(self) -> None:
        """Free its resources. It cannot be used afterwards."""


class MemoryStore(StateStore):
    """State of one partition in memory: gone when the process ends."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self._reserved: dict[bytes, bytes] = {}
        self._end = 0

    @property
    def end(self) -> int:
        """Changelog offset up to which the store is complete (exclusive)."""
        return self._end

    def get(self, key: bytes) -> bytes | None:
        """Return the record of an aggregate, or None if there is none."""
        return self.records.get(key)

    def position(self, tp: TP) -> Position | None:
        """Return the position in an input partition that belongs to this state, if there is one."""
        value = self._reserved.get(position_key(tp))
        return None if value is None else decode_position(value)

    def reserved(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the reserved keys that begin with this, and their values."""
        return (item for item in self._reserved.items() if item[0].startswith(prefix))

    def apply(self, changes: Mapping[bytes, bytes | None], end: int) -> None:
        """Apply records of the changelog; None deletes a key, and `end` is exclusive."""
        for key, value in changes.items():
            target = self._reserved if key.startswith(RESERVED) else self.records
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def approximate_len(self) -> int:
        """Return how many aggregates it has."""
        return len(self.records)

    def close(self) -> None:
        """Do nothing: it has no resources to free."""
