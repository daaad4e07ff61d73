"""What a driver does when its partition fails: it tries again, parks it, or ends the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
from faust.types import TP

from models.errors import Fatal, PartitionFatal
from streams.kafka.transactions import Fenced
from streams.worker import driver as partition_driver
from streams.worker.driver import PartitionDriver
from streams.worker.partition import PartitionStatus
from tests.unit.worker.driving import (
    TOPIC,
    FakePartition,
    FakeWorker,
    chunk,
    idle,
    new_driver,
    partitions_of,
    unreadable,
)


async def test_a_defect_parks_the_partition_in_the_end(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    def fail() -> None:
        raise KeyError("nobody thought of this")

    partition.before_commit = fail
    for _ in range(5):
        assert driver.status.parked is None
        driver.submit(chunk(10, 12))
        await idle(driver)
    assert "the chunk at position 10 failed 5 times: KeyError" in str(driver.status.parked)
    assert worker.failure is None
    await driver.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes between two attempts."""
    sleep = asyncio.sleep
    monkeypatch.setattr(
        partition_driver,
        "asyncio",
        SimpleNamespace(**{**vars(asyncio), "sleep": lambda _: sleep(0)}),
    )


@pytest.mark.usefixtures("at_once")
async def test_an_outage_of_any_length_is_waited_for(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition, failures = FakePartition(position=10), iter(range(2000))

    async def start() -> int:
        if next(failures, None) is not None:
            raise ConnectionError("away")
        return 10

    monkeypatch.setattr(partition, "start", start)
    driver = new_driver(worker, partition)
    driver.start()
    await idle(driver)
    assert worker.failure is None
    assert driver.status == PartitionStatus(10, 0, is_waiting=False)


async def test_a_partition_that_was_started_does_not_wait_for_former_failures(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be quiet for hours before it is fenced; then nothing is wrong."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(
        partition_driver, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    )
    monkeypatch.setattr(FakePartition, "start", fails_at_first(FakePartition.start))
    driver = new_driver(worker, FakePartition(position=10))
    for _ in range(2):
        driver.start()
        await idle(driver)
        await driver.abandon()
    assert len(waits) == 1


@pytest.mark.usefixtures("at_once")
async def test_single_defects_of_starts_do_not_add_up(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = FakePartition.start
    driver = new_driver(worker, FakePartition(position=10))
    for _ in range(5):
        defect = KeyError("nobody thought of this")
        monkeypatch.setattr(FakePartition, "start", fails_at_first(start, defect))
        driver.start()
        await idle(driver)
        assert driver.status == PartitionStatus(10, 0, is_waiting=False)
        await driver.abandon()


@pytest.mark.usefixtures("at_once")
async def test_a_start_that_fails_each_time_parks_the_partition(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = new_driver(worker, FakePartition(position=10))
    defects = [KeyError("nobody thought of this")] * 5
    monkeypatch.setattr(FakePartition, "start", fails_at_first(FakePartition.start, *defects))
    driver.start()
    await idle(driver)
    assert "cannot start 5 times: KeyError" in str(driver.status.parked)
    await driver.close()


@pytest.mark.usefixtures("at_once")
async def test_a_chunk_that_was_committed_after_all_has_not_failed(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    """Its commit failed without an answer. On a quiet partition no other chunk follows."""

    def lose_the_answer() -> None:
        partition.committed = 12
        raise ConnectionError("away")

    partition.before_commit = lose_the_answer
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert driver.status == PartitionStatus(12, 0, is_waiting=False)


@pytest.mark.usefixtures("at_once")
async def test_failures_of_an_outage_are_no_defects(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    errors = iter([*[ConnectionError("away")] * 4, *[KeyError("nobody thought of this")] * 4])

    def fail() -> None:
        for error in errors:
            raise error

    partition.before_commit = fail
    for _ in range(8):
        driver.submit(chunk(10, 12))
        await idle(driver)
    assert worker.failure is None
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert partition.processed == [10, 11]


async def test_a_failed_chunk_starts_the_partition_again_and_nothing_passes_it(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    def fail_once() -> None:
        partition.before_commit = lambda: None
        raise ConnectionError("gone")

    partition.before_commit = fail_once
    driver.submit(chunk(10, 12))
    driver.submit(chunk(12, 14))
    await idle(driver)
    assert partition.processed == []
    assert partition.starts == 2
    assert worker.sought == [10, 10]
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert partition.processed == [10, 11]


def away() -> None:
    raise ConnectionError("away")


@pytest.mark.usefixtures("at_once")
async def test_who_may_be_evicted_starts_again_when_the_group_confirms_that_it_is_not(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    """A start fences: it would stop the owner that the group has chosen meanwhile."""
    worker.confirmed.clear()
    partition.before_commit = away
    driver.submit(chunk(10, 12))
    await asked(worker)
    assert partition.starts == 1
    assert driver.status == PartitionStatus(None, 1, is_waiting=True)
    worker.confirmed.set()
    await idle(driver)
    assert (partition.starts, driver.position) == (2, 10)


@pytest.mark.usefixtures("at_once")
async def test_a_partition_that_has_moved_is_closed_while_its_start_waits(
    worker: FakeWorker,
) -> None:
    partitions, made = partitions_of(worker)
    await partitions.assign({TOPIC})
    await idle(partitions._drivers[TOPIC])
    worker.confirmed.clear()
    made[TOPIC].before_commit = away
    partitions.submit(chunk(0, 2))
    await asked(worker)
    await partitions.revoke({TOPIC})
    await partitions.assign(set())
    assert (made[TOPIC].starts, made[TOPIC].closed) == (1, 1)


async def test_what_was_just_assigned_starts_without_asking(worker: FakeWorker) -> None:
    worker.confirmed.clear()
    partitions, _ = partitions_of(worker)
    await partitions.assign({TOPIC})
    await idle(partitions._drivers[TOPIC])
    assert partitions.positions() == {TOPIC: 0}
    assert not worker.asked.is_set()


@pytest.mark.usefixtures("at_once")
async def test_a_first_start_that_fails_is_repeated_only_by_the_owner(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.confirmed.clear()
    partitions, made = partitions_of(worker)
    monkeypatch.setattr(FakePartition, "start", fails_at_first(FakePartition.start))
    await partitions.assign({TOPIC})
    await asked(worker)
    assert made[TOPIC].starts == 0
    worker.confirmed.set()
    await idle(partitions._drivers[TOPIC])
    assert made[TOPIC].starts == 1


@pytest.mark.usefixtures("at_once")
async def test_a_parked_partition_is_tried_again_only_by_its_owner(
    driver: PartitionDriver,
    worker: FakeWorker,
    partition: FakePartition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_driver, "_PARKED_RETRY_S", 0)
    worker.confirmed.clear()
    cannot_continue(partition)
    driver.submit(chunk(10, 12))
    await idle(driver)
    await asked(worker)
    assert (partition.starts, driver.status.parked) == (1, "do this")
    worker.confirmed.set()
    await idle(driver)
    assert (partition.starts, driver.status.parked) == (2, None)


async def test_a_partition_is_restarted_only_by_its_owner(worker: FakeWorker) -> None:
    partitions, made = partitions_of(worker)
    await partitions.assign({TOPIC})
    await idle(partitions._drivers[TOPIC])
    worker.confirmed.clear()
    await partitions.restart({TOPIC})
    await asked(worker)
    assert made[TOPIC].starts == 1
    await partitions.close()


async def asked(worker: FakeWorker) -> None:
    """Wait until a driver asks whether the partition is still its own."""
    await asyncio.wait_for(worker.asked.wait(), 10)


def fails_at_first(
    start: Callable[[FakePartition], Awaitable[int]], *errors: Exception
) -> Callable[[FakePartition], Awaitable[int]]:
    failures = iter(errors or [ConnectionError("away")])

    async def failing(partition: FakePartition) -> int:
        for error in failures:
            raise error
        return await start(partition)

    return failing


async def test_fenced_gives_the_partition_up_and_rejoins(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    def be_fenced() -> None:
        raise Fenced

    partition.before_commit = be_fenced
    driver.submit(chunk(10, 12))
    driver.submit(chunk(12, 14))
    await idle(driver)
    assert driver.lost
    assert partition.closed == 1
    assert worker.rejoined == 1
    assert partition.processed == []


async def test_fatal_stops_the_worker(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    def fail() -> None:
        raise Fatal("do this")

    partition.before_commit = fail
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert str(worker.failure) == "do this"
    assert driver.lost


async def test_a_refusal_by_kafka_ends_the_worker_at_the_first_failure(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition
) -> None:
    def fail() -> None:
        raise ConnectionError("gone")

    partition.before_commit = fail
    worker.refused = Fatal("the password is wrong")
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert worker.failure is worker.refused
    assert driver.lost


def cannot_continue(partition: FakePartition) -> None:
    def fail() -> None:
        raise PartitionFatal("do this")

    partition.before_commit = fail


async def test_what_stops_one_partition_parks_it(
    worker: FakeWorker, partition: FakePartition
) -> None:
    parked: list[PartitionFatal] = []
    driver = new_driver(worker, partition, parked.append)
    driver.start()
    await idle(driver)
    cannot_continue(partition)
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert driver.status == PartitionStatus(None, 0, is_waiting=False, parked="do this")
    assert (driver.lost, worker.paused, partition.closed) == (True, True, 1)
    assert worker.failure is None
    assert [str(error) for error in parked] == ["do this"]
    await driver.close()


@pytest.mark.parametrize("start", [10, 12])
async def test_a_log_that_cannot_be_read_parks_the_partition_behind_what_could(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition, start: int
) -> None:
    """Also if no records are between the position and the place; nothing is read meanwhile."""
    partition.gate.clear()
    driver.submit(chunk(10, 12))
    await partition.entered.wait()
    driver.submit(unreadable(start, 13, PartitionFatal("damaged at 13")))
    assert (driver.ready, worker.paused) == (False, True)
    partition.gate.set()
    await idle(driver)
    assert partition.chunks == [[10, 11]]
    assert driver.status.parked == "damaged at 13"
    assert worker.failure is None
    await driver.close()


async def test_what_comes_while_the_consumer_is_sent_to_the_position_is_not_left_lying(
    worker: FakeWorker, partition: FakePartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills the driver, so nothing else would come that could start it."""
    driver = new_driver(worker, partition)

    async def read_from(_: TP, position: int) -> None:
        driver.submit(chunk(position, position + 4))
        assert not driver.ready

    monkeypatch.setattr(worker, "read_from", read_from)
    driver.start()
    await idle(driver)
    assert partition.chunks == [[10, 11, 12, 13]]
    assert driver.ready


async def test_a_place_that_could_not_be_read_is_a_failure_like_others(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    driver.submit(unreadable(10, 10, ConnectionError("away")))
    await idle(driver)
    assert (partition.starts, driver.status) == (2, PartitionStatus(10, 1, is_waiting=False))


@pytest.mark.parametrize(("start", "end"), [(5, 8), (12, 14)])
async def test_a_place_elsewhere_that_could_not_be_read_is_none_of_this_position(
    driver: PartitionDriver, worker: FakeWorker, partition: FakePartition, start: int, end: int
) -> None:
    """It was read from another position: before a seek, or after a gap, which is read again."""
    driver.submit(unreadable(start, end, PartitionFatal("damaged")))
    await idle(driver)
    assert (driver.position, partition.starts) == (10, 1)
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert partition.chunks == [[10, 11]]
    assert worker.sought[1:] == ([10] if start > 10 else [])


async def test_a_parked_partition_is_tried_again(
    driver: PartitionDriver, partition: FakePartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_driver, "_PARKED_RETRY_S", 0)
    cannot_continue(partition)
    partition.start_gate.clear()
    partition.begun.clear()
    driver.submit(chunk(10, 12))
    await idle(driver)
    await partition.begun.wait()
    assert driver.status == PartitionStatus(None, 0, is_waiting=True, parked="do this")
    partition.start_gate.set()
    await idle(driver)
    assert driver.status == PartitionStatus(10)


async def test_only_when_all_partitions_are_parked_the_worker_ends(worker: FakeWorker) -> None:
    partitions, made = partitions_of(worker)
    other = TP(TOPIC.topic, 1)
    await partitions.assign({TOPIC, other})
    drivers = partitions._drivers
    await asyncio.gather(*map(idle, drivers.values()))
    cannot_continue(made[TOPIC])
    partitions.submit(chunk(0, 2))
    await idle(drivers[TOPIC])
    assert worker.failure is None
    assert partitions.positions() == {other: 0}

    await partitions.assign({TOPIC, other})
    await idle(drivers[TOPIC])
    assert partitions.positions() == {TOPIC: 0, other: 0}  # a rebalance tries it again

    partitions.submit(chunk(0, 2))
    await idle(drivers[TOPIC])
    cannot_continue(made[other])
    partitions.submit(replace(chunk(0, 2), tp=other))
    await idle(drivers[other])
    assert str(worker.failure) == "do this"
    await partitions.close()


async def test_an_error_of_the_driver_itself_stops_the_worker(
    driver: PartitionDriver,
    worker: FakeWorker,
    partition: FakePartition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def be_fenced() -> None:
        raise Fenced

    async def rejoin() -> None:
        raise KeyError("nobody thought of this")

    partition.before_commit = be_fenced
    monkeypatch.setattr(worker, "rejoin", rejoin)
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert "[0]: its driver raised KeyError; this is a defect" in str(worker.failure)
