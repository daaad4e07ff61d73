"""Liveness is progress: a worker that does not get on ends, and one that only waits does not."""

from __future__ import annotations

import pytest
from aiokafka.structs import TopicPartition

from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import NotInTime, wait_until
from streams.kafka.clients import new_consumer, new_producer, started
from tests.conftest import Deploy
from tests.harness.crash_points import APPS, Point
from tests.harness.deployments import suspended, until_processing
from tests.harness.traffic import check, counting, send

STALL = 3.0  # seconds
# For what is no stall: a rebalance, and a request that is not known yet to be waited for.
PATIENT_STALL = 8.0


def start_defective(deployed: Deployment, defect: str) -> WorkerProcess:
    return deployed.start("commands", app="tests.integration.defective_worker", DEFECT=defect)


def keeps_running(worker: WorkerProcess, timeout: float) -> None:
    """It does not end within so many seconds."""
    with pytest.raises(NotInTime):
        worker.wait(timeout)


@pytest.mark.parametrize(
    "defect",
    [
        "the agent drops chunks",
        "the agent takes no more chunks",
        "the handler hangs",
        "the handler blocks",
    ],
)
async def test_commands_that_are_not_processed_end_the_worker(deploy: Deploy, defect: str) -> None:
    deployed = deploy(partitions=1, stall_timeout=STALL)
    worker = start_defective(deployed, defect)
    await until_processing(worker)
    async with new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(10))
    assert worker.wait() == 1
    line = worker.log_text.splitlines()[-1]
    assert line.startswith(
        f"error: {deployed.names.commands}[0] has stood at position 0 of 10 for 3 s, and nothing "
    )


async def test_an_agent_that_raises_ends_the_worker(deploy: Deploy) -> None:
    deployed = deploy(partitions=1)
    worker = start_defective(deployed, "the agent raises")
    async with new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(10))
    assert worker.wait() == 1
    assert worker.log_text.splitlines()[-1].endswith("decide raised KeyError; the log says where")


@pytest.mark.parametrize(
    ("defect", "line"),
    [
        ("the fetching ends", "aiokafka has ended its _fetch_requests_routine"),
        ("the coordination ends", "aiokafka has ended its _coordination_routine"),
        ("a rebalance does not end", "outside of the group"),
    ],
)
async def test_a_consumer_that_no_longer_fetches_ends_the_worker(
    deploy: Deploy, defect: str, line: str
) -> None:
    """There need not be any work: nobody would notice when there is some."""
    deployed = deploy(partitions=1, stall_timeout=STALL)
    worker = start_defective(deployed, defect)
    assert worker.wait() == 1
    assert worker.log_text.splitlines()[-1].startswith(f"error: {line}")


async def test_a_command_that_comes_before_a_rebalance_ends_is_decided(deploy: Deploy) -> None:
    """It is read after the rebalance has sought, and nothing comes after it."""
    deployed = deploy(partitions=1)
    worker = start_defective(deployed, "a command comes before a rebalance ends")
    await wait_until(lambda: "has sought" in worker.log_text)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(1))
        await outcomes.reach(1)


async def test_aborted_records_at_the_end_are_no_work(deploy: Deploy) -> None:
    """Nor are the markers after the events; and a worker without a partition is a standby."""
    deployed = deploy("commands", "commands", "views", partitions=1, stall_timeout=PATIENT_STALL)
    settings, topic = deployed.settings, deployed.names.commands
    async with (
        counting(deployed) as outcomes,
        new_producer(settings, transactional_id=settings.namespace) as producer,
        started(new_consumer(settings), settings) as reader,
    ):
        async with producer.transaction():
            await send(producer, deployed, generate(10))
        await outcomes.reach(10)
        await producer.begin_transaction()
        await send(producer, deployed, generate(10, seed=2))
        await producer.abort_transaction()
        commands = TopicPartition(topic, 0)
        reader.assign([commands])

        async def all_is_ended() -> bool:
            """10 records and a marker that were committed, then as many that were not."""
            return bool((await reader.end_offsets([commands]))[commands] == 22)

        await wait_until(all_is_ended)
        keeps_running(deployed.workers[0], 2 * PATIENT_STALL)
        assert all(worker.is_running for worker in deployed.workers)
        async with producer.transaction():
            await send(producer, deployed, generate(5, seed=3))
        await outcomes.reach(15)
    await check(deployed)


async def test_a_view_waits_for_elasticsearch(stack: EmbeddedStack, deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=1, stall_timeout=PATIENT_STALL)
    views = deployed.workers[1]
    await until_processing(views)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        stack.elasticsearch.kill()
        try:
            await send(producer, deployed, generate(100))
            await outcomes.reach(100)
            await wait_until(lambda: "Projecting waits" in views.log_text)
            keeps_running(views, 2 * PATIENT_STALL)
        finally:
            stack.elasticsearch.start()
    await check(deployed)


async def test_a_commit_that_is_not_answered_is_given_up(
    stack: EmbeddedStack, deploy: Deploy
) -> None:
    """After a transaction's time the broker has aborted it: the partition starts again."""
    deployed = deploy("views", partitions=1, transaction_timeout=3.0)
    await until_processing(deployed.workers[0])
    before_commit = Point("stop", "before", "commit").environment()
    worker = deployed.start("commands", app=APPS["commands"], **before_commit)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(10))
        await wait_until(lambda: worker.is_suspended)
        async with suspended(stack.kafka, deployed.settings):
            worker.resume()
            await wait_until(
                lambda: "committing took longer than the 3 s of a transaction" in worker.log_text
            )
        await outcomes.reach(10)
    await check(deployed)
