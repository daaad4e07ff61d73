"""A ring misses no key, and uses none that was destroyed while it was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, cast

import async_timeout
import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition

from deploy.waiting import wait_until
from models.errors import PartitionFatal, Transient
from streams.encryption import key_ring
from streams.encryption.cipher import new_key
from streams.encryption.key_ring import KeyRing
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.kafka.records import Record

TOPIC = "users.keys.v1"
MASTER = MasterKeys(new_key())
MAX_GAP_S = 600.0


class Log:
    """A partition of the keys topic; each offset has a record, a marker, or was compacted."""

    def __init__(self) -> None:
        self.records: list[Record | None] = []

    def write(self, key: bytes, value: bytes | None) -> None:
        self.records.append(Record(TOPIC, 0, len(self.records), 0, key, value))

    def commit(self) -> None:
        """Write the marker of a transaction, which is no record."""
        self.records.append(None)

    def compact(self) -> None:
        """Leave the last record of each key; tombstones, which are old enough, go as well."""
        last = {one.key: one.offset for one in self.records if one is not None}
        self.records = [
            one if one is not None and last[one.key] == one.offset and one.value else None
            for one in self.records
        ]


class Consumer:
    """As much of a consumer as a ring uses."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._position = 0
        self.is_away = False
        self.leaderless: int | None = None
        self.asked = self.refusals = self.records_read = 0
        self.on_read: Callable[[], None] = lambda: None

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += 1
        if self.leaderless in {tp.partition for tp in tps}:
            await asyncio.Event().wait()  # aiokafka asks until it has one
        if self.is_away:
            self.refusals += 1
            raise KafkaTimeoutError
        return dict.fromkeys(tps, len(self._log.records))

    async def position(self, _tp: TopicPartition) -> int:
        return self._position

    async def seek_to_beginning(self, _tp: TopicPartition) -> None:
        self._position = 0

    def seek(self, _tp: TopicPartition, offset: int) -> None:
        self._position = offset

    def resume(self, _tp: TopicPartition) -> None: ...

    def pause(self, _tp: TopicPartition) -> None: ...

    async def getmany(
        self, tp: TopicPartition, *, max_records: int, **_options: Any
    ) -> dict[TopicPartition, Any]:
        await asyncio.sleep(0)
        self.on_read()
        rest = self._log.records[self._position :]
        found = [one for one in rest if one is not None][:max_records]
        self._position = found[-1].offset + 1 if found else len(self._log.records)
        self.records_read += len(found)
        return {tp: found}


class Clocks:
    """The clocks of the machine, in the place of the module `time`."""

    def __init__(self) -> None:
        self.running_s = self.wall_s = 0.0

    def monotonic(self) -> float:
        return self.running_s

    def time(self) -> float:
        return self.wall_s


class Setup:
    """A ring, the topic that it reads, and the two consumers with which it does."""

    def __init__(self) -> None:
        self.log = Log()
        self.committed, self.bounds = Consumer(self.log), Consumer(self.log)
        self.ring = KeyRing(
            cast(Any, self.committed), cast(Any, self.bounds), TOPIC, MASTER, MAX_GAP_S
        )
        self.wrapped = PartitionKeys(MASTER).make(b"anna")[0]
        self.log.write(b"anna", self.wrapped)
        self.log.write(b"ben", PartitionKeys(MASTER).make(b"ben")[0])

    async def has(self, key: bytes) -> bool:
        await self.ring.ensure_loaded(0, [key])
        return key in self.ring.of(0)

    def destroy(self) -> None:
        """Destroy Anna's key, and remove every trace of that."""
        self.log.write(b"anna", None)
        self.log.compact()


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(key_ring, "time", clocks)
    return clocks


async def test_a_key_that_comes_while_others_are_read_is_not_missed(clocks: Clocks) -> None:
    """A fetch hands out as many records as it may, also such after what was to be read."""
    setup = Setup()
    assert await setup.has(b"anna")
    for name in (b"cleo", b"dora"):
        setup.log.write(name, PartitionKeys(MASTER).make(name)[0])
        setup.log.commit()

    def write_another() -> None:
        setup.committed.on_read = lambda: None
        setup.log.write(b"emil", PartitionKeys(MASTER).make(b"emil")[0])
        setup.log.commit()

    setup.committed.on_read = write_another
    assert await setup.has(b"dora")
    assert await setup.has(b"emil")


async def test_of_a_partition_that_was_given_up_no_key_is_taken_for_destroyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever still asks, such as the feed of another index, is told so."""
    setup = Setup()
    assert await setup.has(b"anna")
    setup.log.write(b"clara", PartitionKeys(MASTER).make(b"clara")[0])
    end_offsets = setup.bounds.end_offsets

    async def meanwhile(tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        setup.ring.forget(0)
        return await end_offsets(tps)

    monkeypatch.setattr(setup.bounds, "end_offsets", meanwhile)
    with pytest.raises(Transient, match=r"users\.keys\.v1\[0\] .* given up"):
        await setup.has(b"clara")


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_partition_is_given_up_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    """At once, although a broker that is away may take a minute; and what is read then is not kept.

    Its keys would not be followed, so one that is destroyed would stay.
    """
    setup = Setup()
    if loaded:
        assert await setup.has(b"anna")
        setup.log.write(b"clara", PartitionKeys(MASTER).make(b"clara")[0])
    paused: list[int] = []
    monkeypatch.setattr(setup.committed, "pause", lambda tp: paused.append(tp.partition))
    setup.committed.on_read = lambda: setup.ring.forget(0)
    with pytest.raises(Transient, match=r"users\.keys\.v1\[0\] .* given up"):
        await setup.has(b"clara" if loaded else b"anna")
    assert b"anna" not in setup.ring.of(0)
    assert paused == [0]
    setup.committed.on_read = lambda: None
    assert await setup.has(b"anna")


@pytest.mark.parametrize("clock", ["running_s", "wall_s"])
async def test_a_key_destroyed_while_the_process_was_suspended_is_not_used(
    clocks: Clocks, clock: str
) -> None:
    """Whichever clock has noticed: that of the process, or that of the day."""
    setup = Setup()
    assert await setup.has(b"anna")
    setup.destroy()
    setattr(clocks, clock, MAX_GAP_S + 1)
    assert not await setup.has(b"anna")
    assert await setup.has(b"ben")


async def test_a_key_destroyed_while_kafka_was_away_leaves_the_memory(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody asks for it."""
    monkeypatch.setattr(key_ring, "_FOLLOW_INTERVAL_S", 0.0)
    setup = Setup()
    assert await setup.has(b"anna")
    async with following(setup.ring):
        setup.committed.is_away = True
        await wait_until(lambda: setup.committed.refusals > 1)
        setup.destroy()
        clocks.running_s = MAX_GAP_S + 1
        setup.committed.is_away = False
        await wait_until(lambda: b"anna" not in setup.ring.of(0))
        assert b"ben" in setup.ring.of(0)


async def test_a_ring_that_follows_reads_nothing_twice(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "_FOLLOW_INTERVAL_S", 0.0)
    setup = Setup()
    assert await setup.has(b"anna")
    async with following(setup.ring):
        for _ in range(5):
            clocks.running_s += MAX_GAP_S - 1
            setup.committed.asked = 0
            await wait_until(lambda: setup.committed.asked > 1)
    assert await setup.has(b"anna")
    assert setup.committed.records_read == 2


async def test_reading_that_takes_too_long_says_so(clocks: Clocks) -> None:
    """A key may have been read before it was destroyed, and its tombstone be gone since."""
    setup = Setup()
    setup.committed.on_read = lambda: setattr(clocks, "wall_s", clocks.wall_s + MAX_GAP_S + 1)
    with pytest.raises(Transient, match=r"users\.keys\.v1\[0\] was not read .* raise that setting"):
        await setup.has(b"anna")
    setup.committed.on_read = lambda: None
    assert await setup.has(b"anna")


async def test_a_key_that_is_missing_is_looked_for_in_time(clocks: Clocks) -> None:
    """The keys that are there may be outdated by then."""
    setup = Setup()
    assert await setup.has(b"anna")
    setup.committed.on_read = lambda: setattr(clocks, "wall_s", clocks.wall_s + MAX_GAP_S + 1)
    setup.log.write(b"cleo", PartitionKeys(MASTER).make(b"cleo")[0])
    with pytest.raises(Transient, match="was not read"):
        await setup.has(b"cleo")


@asynccontextmanager
async def following(ring: KeyRing) -> AsyncIterator[None]:
    task = asyncio.create_task(ring.follow())
    yield
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_partition_that_is_damaged_keeps_no_destroyed_key_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ring goes on following, and only who asks for the damaged one is told."""
    monkeypatch.setattr(key_ring, "_FOLLOW_INTERVAL_S", 0.0)
    setup = Setup()
    assert await setup.has(b"anna")
    reads = iter([PartitionFatal("damaged"), PartitionFatal("damaged")])

    def on_read() -> None:
        for error in reads:
            raise error

    setup.committed.on_read = on_read
    setup.log.write(b"anna", None)
    async with following(setup.ring), async_timeout.timeout(30):
        await wait_until(lambda: b"anna" not in setup.ring.of(0))
    assert next(reads, None) is None


async def test_a_partition_without_a_leader_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor is it kept from moving to another worker, which a rebalance and a stop wait for."""
    monkeypatch.setattr(key_ring, "_FOLLOW_INTERVAL_S", 0.0)
    setup = Setup()
    ring = setup.ring
    await ring.ensure_loaded(0, [b"anna"])
    setup.committed.leaderless = 0
    asked = setup.committed.asked
    async with following(ring), async_timeout.timeout(30):
        await wait_until(lambda: setup.committed.asked > asked)
        await ring.ensure_loaded(1, [b"anna"])
        ring.forget(0)
    assert b"anna" in ring.of(1)
    assert b"anna" not in ring.of(0)
