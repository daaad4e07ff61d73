"""The keys of several partitions, followed as they are made and destroyed: for who reads events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from streams.aggregate import TopicNames
from streams.encryption.keys import PartitionKeys, master_key
from streams.kafka.clients import new_consumer, started
from streams.kafka.log_reader import open_logs, read_to
from streams.kafka.topics import partitions_of
from streams.settings import Settings

_FOLLOW = 1.0  # seconds after which a key that was destroyed has left the memory
_FETCH_WAIT = 100  # milliseconds that the broker holds a fetch that finds nothing


class KeyRing:
    """Keys by partition. A partition is read from its begin when it is first asked for.

    The marker that commits a transaction reaches its partitions one after the other, so an event
    may be seen before its key. Only `have` tells a key that is gone from one that is on its way.
    """

    def __init__(
        self,
        committed: AIOKafkaConsumer,
        bounds: AIOKafkaConsumer,
        topic: str,
        master: bytes,
        *,
        remember: bool,
    ) -> None:
        self._committed = committed
        self._bounds = bounds
        self._topic = topic
        self._master = master
        self._remember = remember
        self._keys: dict[int, PartitionKeys] = {}
        self._loaded: set[int] = set()  # partitions that were read to their end once
        self._reading = asyncio.Lock()

    def of(self, partition: int) -> PartitionKeys:
        """The keys of a partition, as far as they were read."""
        keys = self._keys.get(partition)
        if keys is None:
            keys = self._keys[partition] = PartitionKeys(self._master)
            self._committed.resume(TopicPartition(self._topic, partition))
        return keys

    async def ensure_loaded(self, partition: int, ids: Collection[bytes]) -> None:
        """See to the keys of these aggregates, of which something encrypted was seen already.

        A key that is not there afterwards is gone: all that was on the topic, committed or not,
        after the encrypted record was seen has been read by then.

        Raises:
            KafkaError, Transient: the topic could not be read to its end.
        """
        keys = self.of(partition)
        missing = {key for key in ids if key not in keys}
        if missing or (ids and partition not in self._loaded):
            await self._read_to_end(partition, missing)

    async def catch_up(self, partition: int) -> None:
        """Read all that there is of a partition by now; raises what `have` does."""
        self.of(partition)
        await self._read_to_end(partition, None)

    async def forget(self, partition: int) -> None:
        """Drop the keys of a partition that somebody else looks after from now on."""
        async with self._reading:
            self._loaded.discard(partition)
            if self._keys.pop(partition, None) is not None:
                tp = TopicPartition(self._topic, partition)
                self._committed.pause(tp)
                await self._committed.seek_to_beginning(tp)

    async def follow(self) -> None:
        """Read what comes, for ever: destroyed keys have to go also where nobody asks for them."""
        while True:
            await asyncio.sleep(_FOLLOW)
            async with self._reading:
                with suppress(KafkaError):  # who asks for a key is told
                    for tp, records in (await self._committed.getmany(timeout_ms=0)).items():
                        self._apply(tp.partition, records)

    async def _read_to_end(self, partition: int, missing: set[bytes] | None) -> None:
        """Up to the end of all that was written by now, or until nothing is missing.

        The first time always to the end: a key may have been destroyed long ago further on.
        """
        tp = TopicPartition(self._topic, partition)
        end = (await self._bounds.end_offsets([tp]))[tp]
        async with self._reading:
            keys = self.of(partition)
            if partition not in self._loaded:
                missing = None
            if missing is not None and all(key in keys for key in missing):
                return
            async for records in read_to(self._committed, tp, end):
                self._apply(partition, records)
                if missing is not None and all(key in keys for key in missing):
                    return
            self._loaded.add(partition)

    def _apply(self, partition: int, records: Iterable[Any]) -> None:
        keys = self._keys.get(partition)
        if keys is None:
            return  # forgotten meanwhile
        remember = self._remember and partition in self._loaded
        for record in records:
            if record.value is not None or not remember:
                keys.apply(record.key, record.value)


async def check_master_key(settings: Settings, names: TopicNames) -> None:
    """Check the master key of the settings, if there is one, on any key that is there already.

    Before a worker makes new keys: those of two master keys on one topic would be beyond repair.

    Raises:
        Fatal: it is another one, or none and personal data is to be encrypted.
    """
    master = master_key(settings)
    if master is None:
        return
    partitions = partitions_of(settings, names.keys)
    async with open_logs(settings, partitions) as logs:
        for partition, end in (await logs.end_offsets(partitions)).items():
            async for records in logs.read(partition, 0, end):
                for record in records:
                    if record.value is not None:
                        PartitionKeys(master).unwrap(record.key, record.value)
                        return


@asynccontextmanager
async def open_key_ring(
    settings: Settings, names: TopicNames, *, remember: bool = False
) -> AsyncIterator[KeyRing | None]:
    """A ring for all partitions, with connections of its own; None if there is no master key.

    Args:
        settings: where Kafka is, and the master key.
        names: of the aggregate's topics.
        remember: keep keys that are destroyed after their partition was first read; for who
            compares what was written at different times, and soon ends.

    Raises:
        Fatal: Kafka does not answer, or personal data is to be encrypted without a master key.
    """
    master = master_key(settings)
    if master is None:
        yield None
        return
    partitions = partitions_of(settings, names.keys)
    async with (
        started(new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT), settings) as committed,
        started(new_consumer(settings, isolation_level="read_uncommitted"), settings) as bounds,
    ):
        for consumer in (committed, bounds):
            consumer.assign(partitions)
            consumer.pause(*partitions)
        ring = KeyRing(committed, bounds, names.keys, master, remember=remember)
        following = asyncio.create_task(ring.follow())
        try:
            yield ring
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
