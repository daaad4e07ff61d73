"""What a driver lets through to its partition, and which chunks it joins."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from models.errors import Fatal
from streams.worker import driver as partition_driver
from streams.worker.driver import PartitionDriver
from tests.unit.worker.driving import FakePartition, FakeWorker, chunk, idle


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.pausing = asyncio.Event()
        self._passed = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.pausing.set()
        await self._passed.wait()

    async def go_on(self) -> None:
        self._passed.set()


@pytest.fixture
async def clock(
    driver: PartitionDriver, partition: FakePartition, monkeypatch: pytest.MonkeyPatch
) -> Clock:
    """At the moment at which the driver has been through a first chunk."""
    clock = Clock()
    monkeypatch.setattr(partition_driver, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    monkeypatch.setattr(
        partition_driver, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": clock.sleep})
    )
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert partition.chunks == [[10, 11]]
    return clock


async def test_chunks_that_come_during_the_pause_are_joined(
    driver: PartitionDriver, partition: FakePartition, clock: Clock
) -> None:
    driver.submit(chunk(12, 13))
    await asyncio.wait_for(clock.pausing.wait(), 10)
    driver.submit(chunk(13, 14))
    await clock.go_on()
    await idle(driver)
    assert partition.chunks == [[10, 11], [12, 13]]


async def test_a_full_chunk_does_not_wait(
    driver: PartitionDriver, partition: FakePartition, clock: Clock
) -> None:
    driver.submit(chunk(12, 16))
    await idle(driver)
    assert not clock.pausing.is_set()
    assert partition.chunks == [[10, 11], [12, 13, 14, 15]]


async def test_chunks_that_are_dropped_during_the_pause_are_not_processed(
    driver: PartitionDriver, partition: FakePartition, clock: Clock
) -> None:
    driver.submit(chunk(12, 13))
    await asyncio.wait_for(clock.pausing.wait(), 10)
    await asyncio.gather(driver.settle(timeout=60), clock.go_on())  # in this order
    assert (driver.position, partition.chunks) == (12, [[10, 11]])


async def test_processes_consecutive_chunks(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    driver.submit(chunk(10, 13))
    driver.submit(chunk(13, 15))
    await idle(driver)
    assert partition.processed == [10, 11, 12, 13, 14]
    assert driver.position == 15


async def test_a_gap_is_never_processed_and_read_again(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    driver.submit(chunk(12, 14))
    await idle(driver)
    assert partition.processed == []
    assert worker.sought == [10, 10]


async def test_a_gap_that_the_log_has_lost_starts_the_partition_again(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    worker.begin = 12
    driver.submit(chunk(12, 14))
    await idle(driver)
    assert partition.processed == []
    assert partition.starts == 2


async def test_records_that_were_processed_before_are_left_out(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    driver.submit(chunk(8, 12))
    driver.submit(chunk(6, 9))
    await idle(driver)
    assert partition.processed == [10, 11]
    assert driver.position == 12


async def test_chunks_that_wait_are_joined_up_to_the_limit(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    partition.gate.clear()
    driver.submit(chunk(10, 11))
    await partition.entered.wait()
    for start, end in ((11, 12), (12, 14), (14, 16)):
        driver.submit(chunk(start, end))
    partition.gate.set()
    await idle(driver)
    assert partition.chunks == [[10], [11, 12, 13], [14, 15]]


async def test_only_consecutive_chunks_are_joined(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    partition.gate.clear()
    driver.submit(chunk(10, 11))
    driver.submit(chunk(12, 13))
    partition.gate.set()
    await idle(driver)
    assert partition.chunks == [[10]]


async def test_is_paused_while_a_full_chunk_waits(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    partition.gate.clear()
    driver.submit(chunk(10, 11))
    await partition.entered.wait()
    driver.submit(chunk(11, 14))
    assert driver.ready
    assert not worker.paused
    driver.submit(chunk(14, 15))
    assert not driver.ready
    assert worker.paused
    partition.gate.set()
    await idle(driver)
    assert not worker.paused
    assert partition.processed == [10, 11, 12, 13, 14]


async def test_the_log_is_checked_only_when_a_chunk_begins_before_the_position(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert partition.log_checks == 0
    driver.submit(chunk(10, 12))
    driver.submit(chunk(11, 14))
    await idle(driver)
    assert partition.log_checks == 2
    assert partition.processed == [10, 11, 12, 13]


async def test_a_log_that_is_another_one_stops_the_worker(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    partition.other_log = Fatal("created again")
    driver.submit(chunk(0, 3))
    await idle(driver)
    assert str(worker.failure) == "created again"
    assert partition.processed == []


async def test_a_log_that_went_back_starts_the_partition_again(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    worker.end = 3
    driver.submit(chunk(0, 3))
    await idle(driver)
    assert partition.starts == 2
    assert partition.processed == []
