"""The state table: one Faust table per aggregate, changed only by committed transactions.

It is a Faust `Table` to read from, partitioned like the command topic. It is not registered with
Faust's table manager: recovery is its own (`restore`), because Faust's swallows errors, can be
skipped at random and keeps what lost partitions left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.stores import memory
from faust.tables.table import Table
from faust.types import TP

from models.errors import Fatal
from streams.log_reader import read_to

# Keys that start with this byte are the table's own. Aggregate ids have no control characters.
_OWN = b"\x00"


def position_key(tp: TP) -> bytes:
    """The changelog's key for the position in an input partition."""
    return _OWN + f"position {tp.topic} {tp.partition}".encode()


def encode_position(position: int) -> bytes:
    """The changelog's value for a position."""
    return orjson.dumps({"position": position})


class PartitionState:
    """The state of one partition: the encoded record of each aggregate, by its id."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self._own: dict[bytes, bytes] = {}

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take over one record of the changelog."""
        target = self._own if key.startswith(_OWN) else self.records
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value

    def position(self, tp: TP) -> int | None:
        """Where the input partition was read to, as far as this state knows."""
        value = self._own.get(position_key(tp))
        return None if value is None else int(orjson.loads(value)["position"])


class _Partitions(memory.Store[bytes, bytes]):
    """The states of the partitions that this worker owns, as the store behind the table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owned: dict[int, PartitionState] = {}

    def __getitem__(self, key: bytes) -> bytes:
        for state in self.owned.values():
            if key in state.records:
                return state.records[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(key in state.records for state in self.owned.values())

    def __iter__(self) -> Iterator[bytes]:
        for state in self.owned.values():
            yield from state.records

    def __len__(self) -> int:
        return sum(len(state.records) for state in self.owned.values())

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


async def restore(consumer: AIOKafkaConsumer, changelog: TopicPartition) -> PartitionState:
    """Read a partition's state from its changelog, up to the changelog's end now.

    ``consumer`` is assigned the changelog and reads committed records. The caller has fenced
    earlier owners, so no open transaction hides the end.

    Raises:
        Fatal: the changelog holds what is no state.
        Transient: reading it did not get on.
    """
    end = (await consumer.end_offsets([changelog]))[changelog]
    await consumer.seek_to_beginning(changelog)
    state = PartitionState()
    async for records in read_to(consumer, changelog, end):
        for record in records:
            if record.key is None:
                raise Fatal(
                    f"{changelog.topic}[{changelog.partition}] holds a record without a key at "
                    f"offset {record.offset}; something else writes to this topic: stop that"
                )
            state.apply(record.key, record.value)
    return state
