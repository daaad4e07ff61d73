"""Data keys for readers of events: read from the keys topic, which is followed from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from streams.aggregate import TopicNames
from streams.encryption.keys import MasterKeys, PartitionKeys, master_keys
from streams.kafka.clients import new_consumer, started
from streams.kafka.log_reader import open_logs, read_to
from streams.kafka.topics import partitions_of
from streams.settings import Settings

# Time between two reads of new records: how long a destroyed key may stay in memory.
_FOLLOW_INTERVAL_S = 1.0

# How long the broker holds a fetch that finds nothing.
_FETCH_WAIT_MS = 100


class KeyRing:
    """Data keys by partition. A partition is read from its beginning when first asked for.

    The marker that commits a transaction reaches its partitions one after the other, so an event
    may be seen before its data key. Only `ensure_loaded` distinguishes a key that was destroyed
    from one that will come.
    """

    def __init__(
        self,
        committed: AIOKafkaConsumer,
        bounds: AIOKafkaConsumer,
        topic: str,
        master: MasterKeys,
    ) -> None:
        """Start without any keys.

        Args:
            committed: consumer of committed records, assigned all partitions, which are paused.
            bounds: consumer that is only asked for the ends of partitions; it counts records of
                open transactions, too.
            topic: name of the keys topic.
            master: the master keys.
        """
        self._committed = committed
        self._bounds = bounds
        self._topic = topic
        self._master = master
        self._keys: dict[int, PartitionKeys] = {}
        self._loaded: set[int] = set()  # partitions that were once read to their end
        self._reading = asyncio.Lock()

    def of(self, partition: int) -> PartitionKeys:
        """Return the data keys of a partition that were read so far."""
        keys = self._keys.get(partition)
        if keys is None:
            keys = self._keys[partition] = PartitionKeys(self._master)
            self._committed.resume(TopicPartition(self._topic, partition))
        return keys

    async def ensure_loaded(self, partition: int, ids: Collection[bytes]) -> None:
        """Load the data keys of these aggregates, of which the caller has seen encrypted records.

        A key that is absent afterwards was destroyed: if one is missing, the topic is read to its
        end at the time of the call (open transactions included), and a key is written before
        anybody can read what it encrypts.

        Raises:
            KafkaError, Transient: the topic could not be read to its end.
        """
        keys = self.of(partition)
        missing = {key for key in ids if key not in keys}
        if missing or (ids and partition not in self._loaded):
            await self._read_to_end(partition, missing)

    async def forget(self, partition: int) -> None:
        """Drop the keys of a partition that another process reads from now on."""
        async with self._reading:
            self._loaded.discard(partition)
            if self._keys.pop(partition, None) is not None:
                tp = TopicPartition(self._topic, partition)
                self._committed.pause(tp)
                await self._committed.seek_to_beginning(tp)

    async def follow(self) -> None:
        """Read new records forever: a destroyed key has to go even if nobody asks for it."""
        while True:
            await asyncio.sleep(_FOLLOW_INTERVAL_S)
            async with self._reading:
                with suppress(KafkaError):  # `ensure_loaded` raises it
                    for tp, records in (await self._committed.getmany(timeout_ms=0)).items():
                        self._apply(tp.partition, records)

    async def _read_to_end(self, partition: int, missing: set[bytes]) -> None:
        """Read a partition to its end, or until it has all `missing` keys.

        The first time it is always read to its end: a key found early may be destroyed further on.
        """
        tp = TopicPartition(self._topic, partition)
        end = (await self._bounds.end_offsets([tp]))[tp]
        async with self._reading:
            keys = self.of(partition)
            was_loaded = partition in self._loaded
            if was_loaded and all(key in keys for key in missing):
                return
            async for records in read_to(self._committed, tp, end):
                self._apply(partition, records)
                if was_loaded and all(key in keys for key in missing):
                    return
            self._loaded.add(partition)

    def _apply(self, partition: int, records: Iterable[Any]) -> None:
        keys = self._keys.get(partition)
        if keys is None:
            return  # `forget` was called meanwhile
        for record in records:
            keys.apply(record.key, record.value)


async def check_master_key(settings: Settings, names: TopicNames) -> None:
    """Check that a master key of the settings, if there is one, is that of the newest data key.

    To be called before a worker creates data keys: a topic with those of two master keys is beyond
    repair.

    Raises:
        Fatal: the master key is another one, or there is none and personal data is to be encrypted.
    """
    master = master_keys(settings)
    if master is None:
        return
    partitions = partitions_of(settings, names.keys)
    async with open_logs(settings, partitions) as logs:
        for partition, end in (await logs.end_offsets(partitions)).items():
            # The newest key: after a rotation older ones may be of a former master key.
            record = await logs.last_record(partition, end, lambda one: one.value is not None)
            if record is not None:
                PartitionKeys(master).unwrap(record.key, record.value)
                return


@asynccontextmanager
async def open_key_ring(settings: Settings, names: TopicNames) -> AsyncIterator[KeyRing | None]:
    """Open a ring for all partitions, with its own connections; None if there is no master key.

    Args:
        settings: where Kafka is, and the master key.
        names: of the aggregate's topics.

    Raises:
        Fatal: Kafka does not answer, or personal data is to be encrypted without a master key.
    """
    master = master_keys(settings)
    if master is None:
        yield None
        return
    partitions = partitions_of(settings, names.keys)
    async with (
        started(new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS), settings) as committed,
        started(new_consumer(settings, isolation_level="read_uncommitted"), settings) as bounds,
    ):
        for consumer in (committed, bounds):
            consumer.assign(partitions)
            consumer.pause(*partitions)
        ring = KeyRing(committed, bounds, names.keys, master)
        following = asyncio.create_task(ring.follow())
        try:
            yield ring
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
