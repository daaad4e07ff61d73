"""Read existing parts of logs by position, without a consumer group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.concurrency import cancel
from streams.kafka.clients import new_consumer, started
from streams.kafka.topics import partitions_of
from streams.logs import name_of
from streams.settings import Settings

# Most records that are yielded at a time.
_MAX_POLL_RECORDS = 5000

# Offsets before the end that are searched first for a last record.
_FIRST_WINDOW = 64

# How long a fetch waits for records. Short, because a commit marker moves the position but does not
# end the wait, and because the next partition is fetched only when the last fetch has ended.
_FETCH_WAIT_MS = 20


async def read_to(
    consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> AsyncIterator[Sequence[Any]]:
    """Yield batches of records from where a `new_consumer` stands up to offset `end` (exclusive).

    It ends by position: commit markers, aborted and compacted records move the position but yield
    nothing. Who goes on from there later misses no record: none that follows `end` is consumed.

    Raises:
        Transient: the position did not move for the consumer's `stall_timeout_s`.
    """
    position = await consumer.position(partition)
    moved = time.monotonic()
    while position < end:
        found = await consumer.getmany(
            partition, timeout_ms=_FETCH_WAIT_MS, max_records=min(_MAX_POLL_RECORDS, end - position)
        )
        fetched = found.get(partition, ())
        records = [record for record in fetched if record.offset < end]
        if len(records) < len(fetched):  # with markers in between, fewer records than offsets
            consumer.seek(partition, end)
        if records:
            yield records
        before, position = position, await consumer.position(partition)
        if position > before:
            moved = time.monotonic()
        elif time.monotonic() - moved > consumer.stall_timeout_s:
            raise Transient(
                f"{name_of(partition)} cannot be read beyond offset "
                f"{position}: a transaction there stays open (`kafka-transactions.sh find-hanging` "
                "finds one that nothing will end), or its broker does not answer"
            )


class LogReader:
    """Reader of committed records, one partition at a time; opened by `open_logs`."""

    def __init__(self, committed: AIOKafkaConsumer, bounds: AIOKafkaConsumer) -> None:
        """Read with `committed`; ask `bounds`, which sees open transactions, for offsets only."""
        self.consumer = committed
        self._bounds = bounds

    async def begin_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the first offset of each partition that retention has left."""
        found: dict[TopicPartition, int] = await self._bounds.beginning_offsets(partitions)
        return found

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the offset after all that is written to each partition, committed or not."""
        found: dict[TopicPartition, int] = await self._bounds.end_offsets(partitions)
        return found

    async def stable_end(self, partition: TopicPartition) -> int:
        """Return the last stable offset of a partition, which is never inside a transaction."""
        self.consumer.assign([partition])
        return int((await self.consumer.end_offsets([partition]))[partition])

    async def stable_ends(
        self, partitions: Collection[TopicPartition], timeout: float
    ) -> Mapping[TopicPartition, int]:
        """Return the last stable offsets of the partitions that tell them within so many seconds.

        They are asked one by one, at the same time: one without a leader holds up no other.
        """
        self.consumer.assign(list(partitions))
        self.consumer.pause(*partitions)
        asked = {tp: asyncio.create_task(self.consumer.end_offsets([tp])) for tp in partitions}
        try:
            await asyncio.wait(asked.values(), timeout=timeout)
        finally:
            await cancel(*asked.values())
        ends: dict[TopicPartition, int] = {}
        for answer in asked.values():
            with suppress(KafkaError, asyncio.CancelledError):
                ends |= answer.result()
        return ends

    async def read(
        self, partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Any]]:
        """Yield batches of committed records from `start` up to offset `end` (exclusive).

        Starts later if retention has removed records from `start` on. Waits for open transactions
        before `end`. Finish one `read` before the next: they share a consumer.

        Raises:
            Transient: as `read_to`.
        """
        position = max(start, (await self.begin_offsets([partition]))[partition])
        self.consumer.assign([partition])
        self.consumer.seek(partition, position)
        async for records in read_to(self.consumer, partition, end):
            yield records

    async def readable_ends(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the offset after the last committed record of each partition; 0 if it has none.

        A reader of records can reach that. It cannot tell that it has reached the end of a log,
        where there may be transaction markers.
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
        """Return the last committed record before `end` that is `wanted`, or None."""
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
    """Open a reader of these partitions.

    Raises:
        Fatal: Kafka does not answer.
    """
    async with (
        started(new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS), settings) as committed,
        started(new_consumer(settings, isolation_level="read_uncommitted"), settings) as bounds,
    ):
        # Assigned, it keeps up with the partitions' leaders; paused, it fetches no records.
        bounds.assign(list(partitions))
        bounds.pause(*partitions)
        yield LogReader(committed, bounds)


async def last_positions(settings: Settings, topic: str) -> Mapping[int, int]:
    """Return `LogReader.readable_ends` of a whole topic, by partition.

    Raises:
        Fatal: Kafka does not answer.
    """
    partitions = partitions_of(settings, topic)
    async with open_logs(settings, partitions) as logs:
        return {tp.partition: end for tp, end in (await logs.readable_ends(partitions)).items()}
