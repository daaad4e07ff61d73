"""Reading parts of logs that were written already, by position, without a consumer group."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.kafka.clients import new_consumer, started
from streams.kafka.topics import partitions_of
from streams.settings import Settings

# How long nothing may come although there is something. The longest open transaction is shorter.
_STALLED = 60.0
_RECORDS = 5000
_FIRST_WINDOW = 64
# Milliseconds. A wait for records does not end with a commit marker, which moves the position too;
# and the next partition's turn only comes when the last fetch has ended.
_WAIT = 20


async def read_to(
    consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> AsyncIterator[Sequence[Any]]:
    """The records from where the consumer stands to before `end`; only positions say it is there.

    Raises:
        Transient: nothing came for longer than any transaction may take.
    """
    position = await consumer.position(partition)
    moved = time.monotonic()
    while position < end:
        found = await consumer.getmany(
            partition, timeout_ms=_WAIT, max_records=min(_RECORDS, end - position)
        )
        records = [record for record in found.get(partition, ()) if record.offset < end]
        if records:
            yield records
        before, position = position, await consumer.position(partition)
        if position > before:
            moved = time.monotonic()
        elif time.monotonic() - moved > _STALLED:
            raise Transient(
                f"{partition.topic}[{partition.partition}] cannot be read beyond offset "
                f"{position}: a transaction there stays open, or its broker does not answer"
            )


class LogReader:
    """Reads committed records of one partition at a time; `open_logs` makes it.

    Positions, not records, say whether the end was reached: commit markers, aborted and compacted
    records move the position without showing a record.
    """

    def __init__(self, committed: AIOKafkaConsumer, bounds: AIOKafkaConsumer) -> None:
        self.consumer = committed
        self._bounds = bounds

    async def begin_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """The first positions that retention has left."""
        found: dict[TopicPartition, int] = await self._bounds.beginning_offsets(partitions)
        return found

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """The positions after all that was written by now, committed or not."""
        found: dict[TopicPartition, int] = await self._bounds.end_offsets(partitions)
        return found

    async def read(
        self, partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Any]]:
        """The committed records from `start` (or what retention has left) to before `end`.

        Waits for open transactions below `end`. Only one of these may be under way.

        Raises:
            Transient: nothing came for longer than any transaction may take.
        """
        position = max(start, (await self.begin_offsets([partition]))[partition])
        self.consumer.assign([partition])
        self.consumer.seek(partition, position)
        async for records in read_to(self.consumer, partition, end):
            yield records

    async def readable_ends(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """The positions behind the last committed record of each by now; 0 where there is none.

        Unlike the end of a log, which has markers of transactions, that is what a reader of records
        can say it has reached.
        """
        ends = await self.end_offsets(partitions)
        last = {
            partition: await self.last_record(partition, end) for partition, end in ends.items()
        }
        return {tp: 0 if record is None else record.offset + 1 for tp, record in last.items()}

    async def last_record(
        self,
        partition: TopicPartition,
        end: int,
        wanted: Callable[[Any], bool] = lambda _record: True,
    ) -> Any | None:
        """The last committed record before `end` that is wanted, or None."""
        begin = (await self.begin_offsets([partition]))[partition]
        window = _FIRST_WINDOW
        while True:
            start = max(begin, end - window)
            last = None
            async for records in self.read(partition, start, end):
                last = next(filter(wanted, reversed(records)), last)
            if last is not None or start == begin:
                return last
            window *= 16


@asynccontextmanager
async def open_logs(
    settings: Settings, partitions: Collection[TopicPartition]
) -> AsyncIterator[LogReader]:
    """A reader of these partitions.

    Raises:
        Fatal: Kafka does not answer.
    """
    async with (
        started(new_consumer(settings, fetch_max_wait_ms=_WAIT), settings) as committed,
        started(new_consumer(settings, isolation_level="read_uncommitted"), settings) as bounds,
    ):
        # Assigned, it keeps up with where their leaders are; it never reads.
        bounds.assign(list(partitions))
        bounds.pause(*partitions)
        yield LogReader(committed, bounds)


async def last_positions(settings: Settings, topic: str) -> Mapping[int, int]:
    """`LogReader.reached` of a whole topic, by partition.

    Raises:
        Fatal: Kafka does not answer.
    """
    partitions = partitions_of(settings, topic)
    async with open_logs(settings, partitions) as logs:
        return {tp.partition: end for tp, end in (await logs.readable_ends(partitions)).items()}
