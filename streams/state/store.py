"""Where the state of one partition is kept, and the keys and positions of its changelog."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import orjson
from faust.types import TP

# Keys that start with this byte are the table's own. Aggregate ids have no control characters.
OWN = b"\x00"


def position_key(tp: TP) -> bytes:
    """The changelog's key for the position in an input partition."""
    return OWN + f"position {tp.topic} {tp.partition}".encode()


def encode_position(position: int) -> bytes:
    """The changelog's value for a position."""
    return orjson.dumps({"position": position})


def decode_position(value: bytes) -> int:
    """The inverse of `encode_position`."""
    return int(orjson.loads(value)["position"])


class StateStore(ABC):
    """The state of one partition: the encoded record of each aggregate, by its id.

    It is never ahead of a committed transaction, and has each of them whole or not at all.
    Iterating gives the ids.
    """

    @property
    @abstractmethod
    def end(self) -> int:
        """The position in the changelog before which nothing is missing; more may be here."""

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """The record of an aggregate."""

    @abstractmethod
    def position(self, tp: TP) -> int | None:
        """Where the input partition was read to, as far as this state knows."""

    @abstractmethod
    def apply(self, changes: Mapping[bytes, bytes | None], end: int) -> None:
        """Take over records of the changelog, which were committed and lie before `end`."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds; nothing of it is used any more."""


class MemoryStore(StateStore):
    """The state of a partition in memory: gone with the process."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self._own: dict[bytes, bytes] = {}
        self._end = 0

    @property
    def end(self) -> int:
        """How far it has the changelog."""
        return self._end

    def get(self, key: bytes) -> bytes | None:
        """The record of an aggregate."""
        return self.records.get(key)

    def position(self, tp: TP) -> int | None:
        """Where the input partition was read to, as far as this state knows."""
        value = self._own.get(position_key(tp))
        return None if value is None else decode_position(value)

    def apply(self, changes: Mapping[bytes, bytes | None], end: int) -> None:
        """Take over records of the changelog."""
        for key, value in changes.items():
            target = self._own if key.startswith(OWN) else self.records
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def close(self) -> None:
        """Nothing is held."""
