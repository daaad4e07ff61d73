"""What is told of a partition: its position, its failures, and whether it waits."""

from __future__ import annotations

from streams.worker.driver import PartitionDriver
from streams.worker.partition import PartitionStatus
from streams.worker.partitions import Partitions
from tests.unit.worker.driving import TOPIC, FakePartition, FakeWorker, chunk, idle, new_driver


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
