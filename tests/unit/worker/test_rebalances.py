"""Where partitions start, what becomes of them in a rebalance, and when a worker is ready."""

from __future__ import annotations

import asyncio

import pytest
from faust.types import TP

from models.errors import PartitionFatal
from streams.worker.driver import PartitionDriver
from streams.worker.partitions import Partitions
from tests.unit.worker.driving import TOPIC, FakePartition, FakeWorker, chunk, idle, partitions_of


async def test_starts_at_the_position_of_its_partition(
    driver: PartitionDriver, worker: FakeWorker
) -> None:
    assert driver.ready
    assert driver.position == 10
    assert worker.sought == [10]


async def test_a_rebalance_lets_the_chunk_at_work_finish(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    partition.gate.clear()
    driver.submit(chunk(10, 12))
    await partition.entered.wait()
    driver.submit(chunk(12, 14))
    settling = asyncio.create_task(driver.settle(timeout=30))
    partition.gate.set()
    await settling
    assert partition.processed == [10, 11]
    assert driver.position == 12


async def test_a_worker_that_stops_begins_no_other_chunk(worker: FakeWorker) -> None:
    """Chunks arrive until Faust stops the consumer, which is after the running ones have ended."""
    partitions, made = partitions_of(worker)
    await partitions.assign({TOPIC})
    await idle(partitions._drivers[TOPIC])
    partition = made[TOPIC]
    partition.gate.clear()
    partitions.submit(chunk(0, 2))
    await partition.entered.wait()
    settling = asyncio.create_task(partitions.settle(timeout=30))
    for _ in range(5):  # until it waits for the running chunk
        await asyncio.sleep(0)
    partitions.submit(chunk(2, 4))
    partition.gate.set()
    await settling
    assert partition.processed == [0, 1]
    assert partitions.positions() == {TOPIC: 2}


async def test_a_chunk_that_does_not_finish_is_abandoned_and_the_partition_starts_again(
    worker: FakeWorker,
) -> None:
    partition = FakePartition()
    partitions = Partitions(worker, settle_timeout=0.01, max_records=4)
    partitions.handle(TOPIC.topic, lambda tp: partition)
    await partitions.assign({TOPIC})
    await idle(partitions._drivers[TOPIC])
    partition.gate.clear()
    partitions.submit(chunk(0, 2))
    await partitions.revoke({TOPIC})
    assert partitions.positions() == {}
    partition.gate.set()
    await partitions.assign({TOPIC})
    await idle(partitions._drivers[TOPIC])
    assert partition.starts == 2
    assert partitions.positions() == {TOPIC: 0}


async def test_partitions_that_went_elsewhere_are_closed(worker: FakeWorker) -> None:
    partitions, made = partitions_of(worker)
    other = TP(TOPIC.topic, 1)
    await partitions.assign({TOPIC, other})
    await partitions.revoke({TOPIC, other})
    await partitions.assign({other})
    assert made[TOPIC].closed == 1
    assert made[other].closed == 0
    partitions.submit(chunk(0, 2))
    assert made[TOPIC].processed == []
    await idle(partitions._drivers[other])
    assert not partitions.is_ready(TOPIC)
    assert partitions.is_ready(other)


async def test_a_worker_says_once_that_all_its_partitions_are_started(
    worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "streams.worker.partitions")
    tps = {TP(TOPIC.topic, number) for number in (0, 1, 3)}
    made: dict[TP, FakePartition] = {}

    def make(tp: TP) -> FakePartition:
        made[tp] = FakePartition()
        made[tp].start_gate.clear()
        return made[tp]

    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    partitions.handle(TOPIC.topic, make)
    await partitions.assign(tps)
    late = made[TP(TOPIC.topic, 3)]
    for partition in made.values():
        if partition is not late:
            partition.start_gate.set()
    await asyncio.gather(*(idle(partitions._drivers[tp]) for tp in tps if made[tp] is not late))
    assert caplog.messages == []
    late.start_gate.set()
    await idle(partitions._drivers[TP(TOPIC.topic, 3)])
    await partitions.assign(tps)  # the group's members change, and this worker keeps what it has
    (line,) = caplog.messages
    assert line.startswith("ready after 0.")
    assert line.endswith(f" s: {TOPIC.topic}[0-1,3], 9 states restored")
    assert vars(caplog.records[0])["event"] == "worker-ready"


async def test_a_worker_without_partitions_says_that_it_is_a_standby(
    worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "streams.worker.partitions")
    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    await partitions.assign(set())
    await partitions.assign(set())
    assert caplog.messages == ["ready as a standby: other workers have all partitions"]


async def test_a_partition_that_is_parked_does_not_count_as_ready(
    worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "streams.worker.partitions")
    other = TP(TOPIC.topic, 1)

    def make(tp: TP) -> FakePartition:
        partition = FakePartition()
        if tp == other:
            partition.start = parked  # type: ignore[method-assign]
        return partition

    async def parked() -> int:
        raise PartitionFatal("its commands expired")

    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    partitions.handle(TOPIC.topic, make)
    await partitions.assign({TOPIC, other})
    await asyncio.gather(*map(idle, partitions._drivers.values()))
    await partitions.close()
    (line,) = (one.message for one in caplog.records if one.levelname == "INFO")
    assert line.endswith(f" s: {TOPIC.topic}[0], 3 states restored")
