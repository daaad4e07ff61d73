"""The state table: one Faust table per aggregate, changed only by committed transactions.

It is a Faust `Table` to read from, partitioned like the command topic. It is not registered with
Faust's table manager: recovery is its own (`restore`), because Faust's swallows errors, can be
skipped at random and keeps what lost partitions left behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.stores import memory
from faust.tables.table import Table
from faust.types import TP

from models.errors import Fatal
from streams.kafka.log_reader import read_to

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


class PartitionState(ABC):
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


class MemoryState(PartitionState):
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


class _Partitions(memory.Store[bytes, bytes]):
    """The states of the partitions that this worker owns, as the store behind the table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owned: dict[int, PartitionState] = {}

    def __getitem__(self, key: bytes) -> bytes:
        for state in self.owned.values():
            value = state.get(key)
            if value is not None:
                return value
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and any(
            state.get(key) is not None for state in self.owned.values()
        )

    def __iter__(self) -> Iterator[bytes]:
        for state in self.owned.values():
            yield from state

    def __len__(self) -> int:
        return sum(len(state) for state in self.owned.values())

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise TypeError("the state table changes by transactions only")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError("the state table changes by transactions only")


class StateTable(Table[bytes, bytes]):
    """Aggregate id -> encoded state, for the partitions that this worker owns.

    What a partition holds is never ahead of a committed transaction.
    """

    def __init__(self, app: Any, name: str, changelog: str) -> None:
        super().__init__(app, name=name, key_type=bytes, value_type=bytes)
        self.changelog = changelog

    def _new_store(self) -> _Partitions:
        return _Partitions("memory://", self.app, self, table_name=self.name)

    @property
    def owned(self) -> dict[int, PartitionState]:
        """The state of each owned partition."""
        return self.data.owned  # type: ignore[no-any-return, attr-defined]

    def on_key_set(self, key: bytes, value: bytes) -> None:
        """Refuse: see `_Partitions`."""
        raise TypeError("the state table changes by transactions only")

    def on_key_del(self, key: bytes) -> None:
        """Refuse: see `_Partitions`."""
        raise TypeError("the state table changes by transactions only")


S = TypeVar("S", bound=PartitionState)


async def restore(consumer: AIOKafkaConsumer, changelog: TopicPartition, state: S) -> S:
    """Read what a state lacks from its changelog, up to the changelog's end now, and return it.

    ``consumer`` is assigned the changelog and reads committed records. The caller has fenced
    earlier owners, so no open transaction hides the end.

    Raises:
        Fatal: the changelog holds what is no state.
        Transient: reading it did not get on.
    """
    end = (await consumer.end_offsets([changelog]))[changelog]
    consumer.seek(changelog, state.end)
    async for records in read_to(consumer, changelog, end):
        changes = {record.key: record.value for record in records}
        if None in changes:
            raise Fatal(
                f"{changelog.topic}[{changelog.partition}] holds a record without a key before "
                f"offset {records[-1].offset + 1}; something else writes to this topic: stop that"
            )
        state.apply(changes, records[-1].offset + 1)
    return state
