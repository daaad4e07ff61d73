"""Reading a log up to an offset, also one that does not get on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.kafka.clients import new_consumer
from streams.kafka.log_reader import LogReader, read_to
from streams.settings import Settings

PARTITION = TopicPartition("things.state-changelog.v1", 0)


class SilentConsumer:
    """Stands where it stands, and nothing comes."""

    stall_timeout_s = 0.0

    async def position(self, partition: TopicPartition) -> int:
        return 3

    async def getmany(self, *args: Any, **kwargs: Any) -> dict[TopicPartition, list[Any]]:
        return {}


async def test_without_records_before_the_end_it_times_out() -> None:
    with pytest.raises(Transient, match="cannot be read beyond offset 3"):
        async for _ in read_to(SilentConsumer(), PARTITION, end=5):
            pass


@pytest.mark.parametrize(("transaction_timeout", "stall"), [(2, 60), (15, 60), (300, 600)])
async def test_it_waits_for_longer_than_a_transaction_may_stay_open(
    transaction_timeout: float, stall: float
) -> None:
    consumer = new_consumer(Settings(transaction_timeout=transaction_timeout))
    assert consumer.stall_timeout_s == stall
    await consumer.stop()


async def test_at_the_end_no_record_is_waited_for() -> None:
    assert [records async for records in read_to(SilentConsumer(), PARTITION, end=3)] == []


@dataclass(frozen=True)
class Record:
    offset: int


class Consumer:
    """Of a log in which each record is a transaction, so that every second offset is a marker."""

    def __init__(self, records: int) -> None:
        self._log = [Record(2 * number) for number in range(records)]
        self._position = 0

    async def position(self, _partition: TopicPartition) -> int:
        return self._position

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self._position = offset

    async def getmany(
        self, partition: TopicPartition, *, max_records: int, **_options: Any
    ) -> Mapping[TopicPartition, list[Record]]:
        found = [one for one in self._log if one.offset >= self._position][:max_records]
        self._position = found[-1].offset + 1
        return {partition: found}


async def test_no_record_after_the_end_is_consumed() -> None:
    consumer = Consumer(records=100)
    seen = []
    for end in (6, 20, 21, 100, 199):
        async for records in read_to(consumer, PARTITION, end):
            seen += [one.offset for one in records]
        assert seen == list(range(0, end, 2))


class Asked:
    """A consumer of three partitions: one without a leader, one with an error, one that answers."""

    def __init__(self) -> None:
        self.assigned: Collection[TopicPartition] = ()
        self.paused: Collection[TopicPartition] = ()

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self.assigned = partitions

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused = partitions

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        if {tp.partition for tp in partitions} & {0}:
            await asyncio.Event().wait()  # aiokafka asks until it has one
        if {tp.partition for tp in partitions} & {1}:
            raise KafkaTimeoutError
        return dict.fromkeys(partitions, 7)


async def test_partitions_that_tell_no_end_hold_up_no_other() -> None:
    consumer = Asked()
    partitions = [TopicPartition("t", number) for number in range(3)]
    before = asyncio.all_tasks()
    ends = await LogReader(cast(Any, consumer), cast(Any, None)).stable_ends(partitions, 0.01)
    assert ends == {partitions[2]: 7}
    assert list(consumer.assigned) == list(consumer.paused) == partitions
    assert asyncio.all_tasks() == before
