"""What a changelog has that is no state of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition

from models.errors import PartitionFatal, Poison
from streams.kafka.records import Record
from streams.state.changelog import restore
from streams.state.rocksdb import Identity, open_rocksdb_store
from streams.state.store import MemoryStore

TP = TopicPartition("users.state-changelog.v1", 3)
BOMB = Poison("oversized", "its batch unpacks to more than 32 MiB")


class Changelog:
    """A consumer of these records, which are at the offsets from 0 on."""

    def __init__(self, *records: tuple[bytes | None, bytes | None] | Poison) -> None:
        self._records = [
            Record(TP.topic, TP.partition, offset, 0, None, None, (), one)
            if isinstance(one, Poison)
            else Record(TP.topic, TP.partition, offset, 0, *one)
            for offset, one in enumerate(records)
        ]
        self._position = 0

    async def end_offsets(self, _tps: object) -> dict[TopicPartition, int]:
        return {TP: len(self._records)}

    def seek(self, _tp: TopicPartition, position: int) -> None:
        self._position = position

    async def position(self, _tp: TopicPartition) -> int:
        return self._position

    async def getmany(self, _tp: object, **_: Any) -> dict[TopicPartition, Sequence[Record]]:
        found = self._records[self._position : self._position + 2]
        self._position += len(found)
        return {TP: found}


async def restored(*records: tuple[bytes | None, bytes | None] | Poison) -> MemoryStore:
    store = MemoryStore()
    await restore(cast(Any, Changelog(*records)), TP, store, len(records))
    return store


async def test_the_last_state_of_each_aggregate_counts() -> None:
    store = await restored((b"anna", b"1"), (b"ben", b"1"), (b"anna", b"2"))
    assert (store.records, store.end, store.unreadable_to) == ({b"anna": b"2", b"ben": b"1"}, 3, 0)


async def test_a_record_that_cannot_be_read_is_left_out_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may have replaced any state: compaction has removed that one."""
    store = await restored((b"anna", b"1"), BOMB, BOMB, (b"ben", b"1"), (b"anna", b"2"))
    assert (store.records, store.end, store.unreadable_to) == ({b"anna": b"2", b"ben": b"1"}, 5, 3)
    assert [line.partition(" at offset ")[2].partition(" ")[0] for line in caplog.messages] == [
        "1",
        "2",
    ]
    assert caplog.messages[0].endswith(
        "than 32 MiB; something else writes to this topic: stop that"
    )


async def test_a_local_store_that_is_opened_again_remembers_a_record_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    """Its states may be incomplete until they were rebuilt, which may fail the first time."""
    changelog = cast(Any, Changelog((b"anna", b"1"), BOMB, (b"ben", b"1")))
    for _ in range(2):
        store = open_rocksdb_store(tmp_path / "store", Identity("topic", TP.partition), 0, 3)
        await restore(changelog, TP, store, 3)
        assert (store.end, store.unreadable_to) == (3, 2)
        assert list(store) == [b"anna", b"ben"]
        store.close()


async def test_a_record_without_a_key_is_nobodys() -> None:
    with pytest.raises(PartitionFatal, match=r"v1\[3\] holds a record without a key before offset"):
        await restored((b"anna", b"1"), (None, b"1"))
