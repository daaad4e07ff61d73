"""Reading a log up to an offset: not beyond it, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.kafka import log_reader
from streams.kafka.log_reader import read_to
from streams.kafka.records import Record

PARTITION = TopicPartition("things.state-changelog.v1", 0)


class SilentConsumer:
    """Stands where it stands, and nothing comes."""

    async def position(self, partition: TopicPartition) -> int:
        return 3

    async def getmany(self, *args: Any, **kwargs: Any) -> dict[TopicPartition, list[Any]]:
        return {}


async def test_without_records_before_the_end_it_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "_STALL_TIMEOUT_S", 0.0)
    with pytest.raises(Transient, match="cannot be read beyond offset 3"):
        async for _ in read_to(SilentConsumer(), PARTITION, end=5):
            pass


async def test_at_the_end_no_record_is_waited_for() -> None:
    assert [records async for records in read_to(SilentConsumer(), PARTITION, end=3)] == []


class GrowingConsumer:
    """Returns all that there is by now, from its position on; odd offsets are commit markers."""

    def __init__(self) -> None:
        self.offset = 0

    async def position(self, _partition: TopicPartition) -> int:
        return self.offset

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.offset = offset

    async def getmany(
        self, partition: TopicPartition, *, max_records: int, **_options: Any
    ) -> dict[TopicPartition, list[Record]]:
        found = [
            Record(partition.topic, partition.partition, offset, 0, b"key", b"value")
            for offset in range(self.offset, 100)
            if offset % 2 == 0
        ][:max_records]
        self.offset = found[-1].offset + 1
        return {partition: found}


async def test_who_reads_on_misses_no_record_that_came_after_the_end() -> None:
    """Six records fit in six offsets only if none of these is a marker."""
    consumer = GrowingConsumer()
    for offsets in ([0, 2, 4], [6, 8, 10]):
        end = offsets[-1] + 2
        read = [
            record.offset async for some in read_to(consumer, PARTITION, end) for record in some
        ]
        assert read == offsets
