"""What a driver lets through to its partition, and what it does when that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from faust.types import TP

from models.errors import Fatal, PartitionFatal
from streams.kafka.records import Record
from streams.kafka.transactions import Fenced
from streams.worker import driver as partition_driver
from streams.worker.chunks import Chunk
from streams.worker.driver import PartitionDriver
from streams.worker.partition import PartitionStatus
from streams.worker.partitions import Partitions

TOPIC = TP("things.commands.v1", 0)


class FakeWorker:
    """Remembers what the drivers asked of it."""

    def __init__(self) -> None:
        self.sought: list[int] = []
        self.begin, self.end = 0, 1000
        self.paused = False
        self.rejoined = 0
        self.failure: Fatal | None = None
        self.refused: Fatal | None = None

    async def read_from(self, tp: TP, position: int) -> None:
        self.sought.append(position)
        self.paused = False

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        return self.begin, self.end

    def pause(self, tp: TP) -> None:
        self.paused = True

    def resume(self, tp: TP) -> None:
        self.paused = False

    async def rejoin(self) -> None:
        self.rejoined += 1

    async def refusal(self, error: Exception) -> Fatal | None:
        return self.refused

    def fail(self, error: Fatal) -> None:
        self.failure = error


class FakePartition:
    """Starts at a position, and processes what it is let process."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self.starts = 0
        self.closed = 0
        self.processed: list[int] = []
        self.chunks: list[list[int]] = []
        self.committed = 0
        self.begun = asyncio.Event()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        self.before_commit: Callable[[], None] = lambda: None
        self.is_waiting = False
        self.restored: int | None = 3
        self.log_checks = 0
        self.other_log: Fatal | None = None

    async def start(self) -> int:
        self.starts += 1
        self.begun.set()
        await self.start_gate.wait()
        return max(self.position, self.committed)

    async def check_log(self) -> None:
        self.log_checks += 1
        if self.other_log is not None:
            raise self.other_log

    async def process(self, records: Sequence[Record], position: int) -> None:
        self.entered.set()
        await self.gate.wait()
        self.before_commit()
        self.processed.extend(record.offset for record in records)
        self.chunks.append([record.offset for record in records])
        self.committed = position

    async def close(self) -> None:
        self.closed += 1


def chunk(start: int, end: int) -> Chunk:
    return Chunk(
        TOPIC, [Record(*TOPIC, offset, 0, None, b"") for offset in range(start, end)], start, end
    )


async def idle(driver: PartitionDriver) -> None:
    """Wait for all that the driver has been given."""
    assert driver._task is not None
    await driver._task


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def partition() -> FakePartition:
    return FakePartition(position=10)


def new_driver(
    worker: FakeWorker,
    partition: FakePartition,
    on_parked: Callable[[PartitionFatal], None] = lambda _: None,
) -> PartitionDriver:
    return PartitionDriver(
        TOPIC, partition, worker, max_records=4, on_parked=on_parked, on_started=lambda: None
    )


@pytest.fixture
async def driver(worker: FakeWorker, partition: FakePartition) -> PartitionDriver:
    driver = new_driver(worker, partition)
    driver.start()
    await idle(driver)
    return driver


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


async def test_starts_at_the_position_of_its_partition(
    driver: PartitionDriver, worker: FakeWorker
) -> None:
    assert driver.ready
    assert driver.position == 10
    assert worker.sought == [10]


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
    assert driver.status == PartitionStatus(10, 2000, is_waiting=False)


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
    made: dict[TP, FakePartition] = {}

    def make(tp: TP) -> FakePartition:
        made[tp] = FakePartition()
        return made[tp]

    other = TP(TOPIC.topic, 1)
    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    partitions.handle(TOPIC.topic, make)
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
    made: dict[TP, FakePartition] = {}

    def make(tp: TP) -> FakePartition:
        made[tp] = FakePartition()
        return made[tp]

    other = TP(TOPIC.topic, 1)
    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    partitions.handle(TOPIC.topic, make)
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


async def test_a_long_start_is_not_interrupted(worker: FakeWorker) -> None:
    partition = FakePartition(position=10)
    partition.start_gate.clear()
    driver = new_driver(worker, partition)
    assert driver.status == PartitionStatus(None, 0, is_waiting=False)
    driver.start()
    assert driver.status == PartitionStatus(None, 0, is_waiting=True)
    partition.start_gate.set()
    await idle(driver)
    assert driver.status == PartitionStatus(10, 0, is_waiting=False)


async def test_a_chunk_at_work_waits_only_if_its_partition_says_so(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    partition.gate.clear()
    driver.submit(chunk(10, 12))
    await partition.entered.wait()
    assert driver.status == PartitionStatus(10, 0, is_waiting=False)
    partition.is_waiting = True
    assert driver.status == PartitionStatus(10, 0, is_waiting=True)
    partition.gate.set()
    await idle(driver)
    assert driver.status == PartitionStatus(
        12, 0, is_waiting=True
    )  # it may see that without a chunk, too
    partition.is_waiting = False
    assert driver.status == PartitionStatus(12, 0, is_waiting=False)


async def test_a_failure_shows_until_a_chunk_is_processed(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    def fail_once() -> None:
        partition.before_commit = lambda: None
        raise ConnectionError("gone")

    partition.before_commit = fail_once
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert driver.status == PartitionStatus(10, 1, is_waiting=False)
    driver.submit(chunk(10, 12))
    await idle(driver)
    assert driver.status == PartitionStatus(12, 0, is_waiting=False)


async def test_an_unknown_partition_has_no_position(worker: FakeWorker) -> None:
    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    assert partitions.status(TOPIC) == PartitionStatus(None, 0, is_waiting=False)


async def test_the_age_of_the_next_record_is_known_while_it_waits(
    driver: PartitionDriver, partition: FakePartition
) -> None:
    assert driver.report(None).next_at is None
    partition.gate.clear()
    driver.submit(chunk(10, 12))
    await partition.entered.wait()
    driver.submit(chunk(12, 13))
    report = driver.report(end=20)
    assert (report.state, report.lag_records, report.next_at) == ("running", 10, 0.0)
    partition.gate.set()
    await idle(driver)
    after = driver.report(end=13)
    assert (after.lag_records, after.next_at) == (0, None)
    assert after.progressed_at >= report.progressed_at


async def test_what_a_broker_tells_is_noted(worker: FakeWorker, partition: FakePartition) -> None:
    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    partitions.handle(TOPIC.topic, lambda _: partition)
    assert not partitions.joined
    assert partitions.kafka_answered_at is None
    await partitions.assign([TOPIC])
    assert partitions.joined
    assert partitions.reports()[TOPIC].end is None
    partitions.note_ends({TOPIC: 30})
    assert partitions.reports()[TOPIC].end == 30
    assert partitions.kafka_answered_at is not None
    assert list(partitions.topics) == [TOPIC.topic]
    await partitions.close()


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
