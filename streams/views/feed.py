"""Feeds an index with events by a reader of its own, each partition from its checkpoint on.

A rebuild feeds the new index up to the end of the topic. A worker feeds an index that it follows
beside the serving one: so whatever is wrong with that index holds up nobody who reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from models.errors import PartitionFatal, Transient
from models.messages import Event
from streams.concurrency import gather_or_cancel
from streams.kafka.clients import new_consumer, started
from streams.kafka.records import Record
from streams.logs import name_of
from streams.settings import Settings
from streams.views.event_reader import EventReader
from streams.views.writer import PartitionWriter

E = TypeVar("E", bound=Event)

MAX_CHUNK_RECORDS = 16_000
"""A chunk's documents should be written within seconds; a compressed fetch has 60,000 events."""

_FETCH_WAIT_MS = 1000

# Time until a followed partition that cannot continue is tried again, as a worker's own.
_PARKED_RETRY_S = 60.0


class Feed(Generic[E]):
    """Feeds one index; nobody else may use these writers meanwhile."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        reader: EventReader[E],
        writers: Mapping[int, PartitionWriter[E]],
    ) -> None:
        """Prepare a feed.

        Args:
            settings: Contains the address of Kafka.
            topic: The event topic.
            reader: Reads its records.
            writers: A writer into the index for each partition to feed.
        """
        self._settings = settings
        self._topic = topic
        self._reader = reader
        self._writers = writers

    async def load(self, ends: Mapping[int, int], report: Callable[[int], None]) -> None:
        """Project the events up to these positions; call `report` when a partition has got on.

        Raises:
            IndexChanged: Another process writes to the index.
            Fatal: The first events are gone, or as `PartitionWriter.write` raises.
            KafkaError, Transient: A server failed, or no event came for the consumer's
                `stall_timeout_s`.
        """
        async with self._consumer() as consumer:
            await gather_or_cancel(
                *(
                    self._partition(consumer, number, ends[number], report)
                    for number in self._writers
                )
            )

    async def follow(self, on_parked: Callable[[PartitionFatal], None]) -> None:
        """Project all events, for ever; raises as `load` does.

        A partition that cannot continue is tried again every minute, and holds up no other one.
        `on_parked` gets the reason, each time.
        """
        async with self._consumer() as consumer:
            await gather_or_cancel(
                *(self._follow(consumer, number, on_parked) for number in self._writers)
            )

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        """Open a consumer that reads none of the partitions yet."""
        unstarted = new_consumer(self._settings, max_poll_records=MAX_CHUNK_RECORDS)
        async with started(unstarted, self._settings) as consumer:
            partitions = [TopicPartition(self._topic, number) for number in self._writers]
            consumer.assign(partitions)
            consumer.pause(*partitions)
            yield consumer

    async def _follow(
        self, consumer: AIOKafkaConsumer, number: int, on_parked: Callable[[PartitionFatal], None]
    ) -> None:
        while True:
            try:
                await self._partition(consumer, number, None, lambda _: None)
            except PartitionFatal as error:
                consumer.pause(TopicPartition(self._topic, number))
                on_parked(error)
                await asyncio.sleep(_PARKED_RETRY_S)

    async def _start(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
        """Start the writer of a partition, and read it from the writer's position on."""
        position = await self._writers[partition.partition].start()
        begin = (await consumer.beginning_offsets([partition]))[partition]
        if begin > position:
            raise PartitionFatal(
                f"{name_of(partition)} begins at {begin}: the events before are gone, and a view "
                "without them would be wrong; restore the topic from a backup"
            )
        consumer.seek(partition, position)
        consumer.resume(partition)

    async def _partition(
        self,
        consumer: AIOKafkaConsumer,
        number: int,
        end: int | None,
        report: Callable[[int], None],
    ) -> None:
        """Project a partition. They run at the same time: one is read while another is indexed."""
        writer = self._writers[number]
        await self._start(consumer, TopicPartition(self._topic, number))
        report(number)
        heard = time.monotonic()
        while end is None or writer.checkpoint.position < end:
            found = await consumer.getmany(
                TopicPartition(self._topic, number), timeout_ms=_FETCH_WAIT_MS
            )
            for records in found.values():
                await self._project(writer, records)
            report(number)
            if found:
                heard = time.monotonic()
            elif end is not None and time.monotonic() - heard > consumer.stall_timeout_s:
                raise Transient(
                    f"{self._topic}[{number}]: nothing came after position "
                    f"{writer.checkpoint.position} for {consumer.stall_timeout_s:g} s: a broker "
                    "may be away, or a transaction open; run this again, it continues from there"
                )

    async def _project(self, writer: PartitionWriter[E], records: list[Record]) -> None:
        events, sources = await writer.dead_letters.decode(self._reader, records)
        await writer.write(events, sources, records[-1].offset + 1)
