"""Data keys for readers of events: read from the keys topic, which is followed from then on."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import async_timeout
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.errors import Fatal, PartitionFatal, Transient
from streams.aggregate import TopicNames
from streams.concurrency import cancel
from streams.encryption.keys import WRONG_MASTER_KEY, MasterKeys, PartitionKeys, master_keys
from streams.kafka.clients import new_consumer, started
from streams.kafka.log_reader import LogReader, open_logs, read_to
from streams.kafka.topics import delete_retention_s, partitions_of
from streams.logs import name_of
from streams.settings import Settings

# Time between two reads of new records: how long a destroyed key may stay in memory.
_FOLLOW_INTERVAL_S = 1.0

# Time that a partition has to say which master key its newest data key is of, before a start.
_CHECK_TIMEOUT_S = 5.0

# How long the broker holds a fetch that finds nothing.
_FETCH_WAIT_MS = 100


class Moment(NamedTuple):
    """A moment by two clocks: neither a suspended machine nor a clock that is set hides time."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(time.monotonic(), time.time())

    @property
    def age(self) -> float:
        """Seconds since then, by the clock that says more."""
        now = self.now()
        return max(now.monotonic - self.monotonic, now.wall - self.wall)


@dataclass
class _Loaded:
    """Data keys of a partition; all that was written before `complete_at` has been applied."""

    keys: PartitionKeys
    complete_at: Moment


class KeyRing:
    """Data keys by partition. A partition is read from its beginning when first asked for.

    The marker that commits a transaction reaches its partitions one after the other, so an event
    may be seen before its data key. Only `ensure_loaded` distinguishes a key that was destroyed
    from one that will come.

    Compaction removes tombstones, too, so who follows the topic has to see each within a bounded
    time (`max_gap_s`). Who did not, because the process was suspended or Kafka was away, may have
    missed one: then the partition is read from its beginning again, before any of its keys is used.
    """

    def __init__(
        self,
        committed: AIOKafkaConsumer,
        bounds: AIOKafkaConsumer,
        topic: str,
        master: MasterKeys,
        max_gap_s: float,
    ) -> None:
        """Start without any keys.

        Args:
            committed: consumer of committed records, assigned all partitions, which are paused.
            bounds: consumer that is only asked for the ends of partitions; it counts records of
                open transactions, too.
            topic: name of the keys topic.
            master: the master keys.
            max_gap_s: seconds for which the topic need not be read without missing a tombstone.
        """
        self._committed = committed
        self._bounds = bounds
        self._topic = topic
        self._master = master
        self._max_gap_s = max_gap_s
        self._loaded: dict[int, _Loaded] = {}
        # One for each partition: a broker that is away holds up no other.
        self._reading: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        # How often each partition was forgotten: a read that was under way keeps nothing of it.
        self._forgotten: dict[int, int] = defaultdict(int)

    def of(self, partition: int) -> PartitionKeys:
        """Return the data keys of a partition that were read so far."""
        loaded = self._loaded.get(partition)
        return PartitionKeys(self._master) if loaded is None else loaded.keys

    async def ensure_loaded(self, partition: int, ids: Collection[bytes]) -> None:
        """Load the data keys of these aggregates, of which the caller has seen encrypted records.

        A key that is absent afterwards was destroyed: if one is missing, the topic is read to its
        end at the time of the call (open transactions included), and a key is written before
        anybody can read what it encrypts.

        Raises:
            KafkaError, Transient: the topic could not be read to its end, or not in time.
            PartitionFatal: its log is damaged.
        """
        if not ids:
            return
        if self._is_outdated(partition):
            await self._catch_up(partition, anew=True)
        if self._missing(partition, ids):
            tp = TopicPartition(self._topic, partition)
            end = (await self._bounds.end_offsets([tp]))[tp]
            async with self._reader_of(tp):
                await self._read_to(tp, end, ids)
            self._check_gap(tp, self._loaded.get(partition))

    def forget(self, partition: int) -> None:
        """Drop the keys of a partition that another process reads from now on.

        It waits for nothing: a rebalance does, and a read may take a minute while a broker is away.
        """
        self._loaded.pop(partition, None)
        self._forgotten[partition] += 1
        if not self._reading[partition].locked():  # else who reads it pauses it
            self._committed.pause(TopicPartition(self._topic, partition))

    async def follow(self) -> None:
        """Read new records forever: a destroyed key has to go even if nobody asks for it."""
        while True:
            await asyncio.sleep(_FOLLOW_INTERVAL_S)
            for partition in tuple(self._loaded):
                # `ensure_loaded` raises it.
                with suppress(KafkaError, Transient, PartitionFatal):
                    await self._catch_up(partition, anew=False)

    def _is_outdated(self, partition: int) -> bool:
        """Whether the partition was not read yet, or a tombstone may have been missed."""
        loaded = self._loaded.get(partition)
        return loaded is None or loaded.complete_at.age > self._max_gap_s

    def _check_gap(self, tp: TopicPartition, loaded: _Loaded | None) -> None:
        """Check that no tombstone can have been missed while the partition was read."""
        if loaded is not None and loaded.complete_at.age > self._max_gap_s:
            raise not_read_in_time(tp, self._max_gap_s)

    def _missing(self, partition: int, ids: Collection[bytes]) -> bool:
        keys = self.of(partition)
        return not all(key in keys for key in ids)

    async def _catch_up(self, partition: int, *, anew: bool) -> None:
        """Read a partition up to its last stable offset; an outdated one from the beginning.

        Nothing behind that offset is compacted, so no tombstone can be missing there. One that is
        not loaded, or no longer, is only read if `anew`.
        """
        tp = TopicPartition(self._topic, partition)
        asked = Moment.now()
        # Without the lock: aiokafka asks for as long as a partition has no leader.
        end = (await self._committed.end_offsets([tp]))[tp]
        async with self._reader_of(tp):
            loaded = self._loaded.get(partition)
            if loaded is None and not anew:
                return
            if loaded is None or self._is_outdated(partition):
                loaded = _Loaded(PartitionKeys(self._master), asked)
                self._committed.resume(tp)
                await self._committed.seek_to_beginning(tp)
            async for records in read_to(self._committed, tp, end):
                _apply(loaded.keys, records)
            self._check_gap(tp, loaded)
            loaded.complete_at = max(loaded.complete_at, asked)
            self._loaded[partition] = loaded

    @asynccontextmanager
    async def _reader_of(self, tp: TopicPartition) -> AsyncIterator[None]:
        """Be the only one that reads a partition, during the block.

        Raises:
            Transient: `forget` was called meanwhile, so nothing is known of its keys.
        """
        async with self._reading[tp.partition]:
            before = self._forgotten[tp.partition]
            try:
                yield
            finally:
                if self._forgotten[tp.partition] != before:
                    self._loaded.pop(tp.partition, None)
                    self._committed.pause(tp)
            if self._forgotten[tp.partition] != before:
                raise self._given_up(tp)

    def _given_up(self, tp: TopicPartition) -> Transient:
        return Transient(f"{name_of(tp)} was given up while it was asked for keys")

    async def _read_to(self, tp: TopicPartition, end: int, ids: Collection[bytes]) -> None:
        """Read a loaded partition on, up to offset `end` or until it has all keys of `ids`.

        Raises:
            Transient: `forget` was called meanwhile, so nothing is known of its keys.
        """
        loaded = self._loaded.get(tp.partition)
        if loaded is None:
            raise self._given_up(tp)
        async for records in read_to(self._committed, tp, end):
            _apply(loaded.keys, records)
            if not self._missing(tp.partition, ids):
                return


async def max_key_gap_s(settings: Settings, names: TopicNames) -> float:
    """Return for how many seconds the keys topic need not be read without missing a tombstone.

    Half of the time that tombstones stay: a broker may be that much late in telling what it has, or
    wrong in measuring time.

    Raises:
        Fatal: the topic is missing, or the cluster refuses to describe it.
    """
    return await delete_retention_s(settings, names, names.keys) / 2


def not_read_in_time(tp: TopicPartition, max_gap_s: float) -> Transient:
    """Build the error for a partition of the keys topic of which a tombstone may be missed."""
    return Transient(
        f"{name_of(tp)} was not read to its end within "
        f"{max_gap_s:g} s, half of its delete.retention.ms, so the end of a key may "
        "have been missed; if it happens again, raise that setting of the topic"
    )


def _apply(keys: PartitionKeys, records: Iterable[Any]) -> None:
    for record in records:
        if record.key is not None:  # else it cannot be read: who has lost a key notices that
            keys.apply(record.key, record.value)


async def check_master_key(settings: Settings, names: TopicNames) -> None:
    """Check that a master key of the settings, if there is one, is that of the newest data keys.

    To be called before data keys are created: a topic with those of two master keys is beyond
    repair. In each partition the newest one decides: after a rotation older ones may be of a former
    master key. Of the partitions, most decide: the newest of one may be an old one, from a backup.
    A partition that cannot be read within seconds is left to who needs its keys.

    Raises:
        Fatal: Kafka does not answer, the master key is another one, or there is none and personal
            data is to be encrypted.
    """
    master = master_keys(settings)
    if master is None:
        return
    partitions = partitions_of(settings, names.keys)
    right = wrong = 0  # partitions
    async with open_logs(settings, partitions) as logs:
        # Up to these ends nothing has to be waited for, also if a transaction stays open.
        for partition, end in (await logs.stable_ends(partitions, _CHECK_TIMEOUT_S)).items():
            with suppress(KafkaError, Transient, PartitionFatal, asyncio.TimeoutError):
                async with async_timeout.timeout(_CHECK_TIMEOUT_S):
                    is_right = await _is_of_newest(master, logs, partition, end)
                right += is_right is True
                wrong += is_right is False
            if right > wrong:
                return
    if wrong > right:
        raise Fatal(WRONG_MASTER_KEY)


async def _is_of_newest(
    master: MasterKeys, logs: LogReader, partition: TopicPartition, end: int
) -> bool | None:
    """Return whether a master key is that of a partition's newest data key; None: it has none.

    If that one is damaged, or of an older version and another master key, any that opens decides.

    Raises:
        KafkaError, Transient, PartitionFatal: the partition cannot be read.
    """
    newest = await logs.last_record(partition, end, lambda one: one.value is not None)
    if newest is None:
        return None
    found = master.did_wrap(newest.key, newest.value)
    if found is not None:
        return found
    opened = await logs.last_record(
        partition, end, lambda one: one.value is not None and master.opens(one.key, one.value)
    )
    return opened is not None


@asynccontextmanager
async def open_key_ring(settings: Settings, names: TopicNames) -> AsyncIterator[KeyRing | None]:
    """Open a ring for all partitions, with its own connections; None if there is no master key.

    Args:
        settings: where Kafka is, and the master key.
        names: of the aggregate's topics.

    Raises:
        Fatal: Kafka does not answer, the master key is another one, or there is none and personal
            data is to be encrypted.
    """
    master = master_keys(settings)
    if master is None:
        yield None
        return
    await check_master_key(settings, names)
    partitions = partitions_of(settings, names.keys)
    max_gap_s = await max_key_gap_s(settings, names)
    async with (
        started(new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS), settings) as committed,
        started(new_consumer(settings, isolation_level="read_uncommitted"), settings) as bounds,
    ):
        for consumer in (committed, bounds):
            consumer.assign(partitions)
            consumer.pause(*partitions)
        ring = KeyRing(committed, bounds, names.keys, master, max_gap_s)
        following = asyncio.create_task(ring.follow())
        try:
            yield ring
        finally:
            await cancel(following)
