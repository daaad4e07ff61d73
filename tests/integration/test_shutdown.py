"""A worker that is asked to stop leaves within ten seconds, whatever it does and its servers do.

Ten seconds are what it promises, so they are the deadline here, counted from the signal. What it
leaves behind has to be found in order by the worker that comes after it.
"""

from __future__ import annotations

import os
import signal
from itertools import islice

import psutil  # type: ignore[import-untyped]
import pytest

from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.supervisor import Role
from deploy.waiting import wait_until
from streams.kafka.clients import new_producer
from tests.conftest import Deploy
from tests.harness.crash_points import APPS, CommandStep, Point, TakeoverStep, ViewStep
from tests.harness.deployments import suspended, until_processing
from tests.harness.traffic import check, counting, send

IN_GOOD_ORDER = 0
TOO_LATE = 124
AT_ONCE = 143

PROMISE = 10.0  # seconds


def stop(worker: WorkerProcess, number: signal.Signals = signal.SIGTERM) -> int:
    """Ask it to stop; the exit code."""
    os.kill(worker.pid, number)
    return worker.wait(PROMISE)


async def about_to(
    step: CommandStep | TakeoverStep | ViewStep, role: Role, deploy: Deploy
) -> tuple[Deployment, WorkerProcess]:
    """A deployment with 100 commands, whose worker of this role is suspended before a step.

    The worker of the other role is at work: one that starts may well end when a server is gone.
    """
    deployed = deploy(partitions=1)
    await until_processing(deployed.start("views" if role == "commands" else "commands"))
    worker = deployed.start(role, app=APPS[role], **Point("stop", "before", step).environment())
    async with new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(100))
    await wait_until(lambda: worker.is_suspended, what=f"it is about to {step}")
    return deployed, worker


async def all_is_kept(deployed: Deployment, worker: WorkerProcess, commands: int) -> None:
    """The next worker takes over what the one that has left was at."""
    successor = deployed.start(worker.role)
    await until_processing(successor)
    async with counting(deployed) as outcomes:
        await outcomes.reach(commands)
        assert outcomes.total == commands
    report = await check(deployed)
    assert report.commands == commands


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle(deploy: Deploy, number: signal.Signals) -> None:
    deployed = deploy("commands", "views")
    for worker in deployed.workers:
        await until_processing(worker)
        assert stop(worker, number) == IN_GOOD_ORDER


async def test_two_signals_at_once_are_one_request(deploy: Deploy) -> None:
    """systemd signals a worker, and so does the supervisor, which systemd signals as well."""
    worker = deploy("commands").workers[0]
    await until_processing(worker)
    os.kill(worker.pid, signal.SIGTERM)
    assert stop(worker, signal.SIGINT) == IN_GOOD_ORDER


async def test_under_load(deploy: Deploy) -> None:
    """The chunk at work is finished, the others are left to the next owner."""
    deployed = deploy("commands", "views")
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        commands = generate(12_000)
        sent = await send(producer, deployed, islice(commands, 6000))
        await outcomes.reach(1)
        sent += await send(producer, deployed, commands)
        for worker in deployed.workers:
            assert stop(worker) == IN_GOOD_ORDER
            worker.start()
        await outcomes.reach(sent)
        assert outcomes.total == sent
    await check(deployed)


async def test_during_a_rebalance(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=2)
    worker = deployed.workers[0]
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        sent = await send(producer, deployed, generate(6000))
        await outcomes.reach(1)
        deployed.start("commands")
        await wait_until(lambda: "because it is rebalancing" in worker.log_text)
        assert stop(worker) == IN_GOOD_ORDER
        await outcomes.reach(sent)
        assert outcomes.total == sent
    await check(deployed)


async def test_before_it_has_joined(stack: EmbeddedStack, deploy: Deploy) -> None:
    """Kafka takes its connection and answers nothing."""
    deployed = deploy()
    async with suspended(stack.kafka, deployed.settings):
        worker = deployed.start("commands")
        await wait_until(lambda: psutil.Process(worker.pid).net_connections())
        assert stop(worker) == IN_GOOD_ORDER


async def test_idle_and_kafka_does_not_answer(stack: EmbeddedStack, deploy: Deploy) -> None:
    """Nobody hears that it leaves the group, and it does not wait for an answer."""
    deployed = deploy("commands", "views")
    for worker in deployed.workers:
        await until_processing(worker)
    async with suspended(stack.kafka, deployed.settings):
        for worker in deployed.workers:
            assert stop(worker) == IN_GOOD_ORDER


@pytest.mark.parametrize("step", ["restore", "commit"])
async def test_kafka_does_not_answer(
    stack: EmbeddedStack, deploy: Deploy, step: CommandStep | TakeoverStep
) -> None:
    deployed, worker = await about_to(step, "commands", deploy)
    async with suspended(stack.kafka, deployed.settings):
        worker.resume()
        assert stop(worker) in (IN_GOOD_ORDER, TOO_LATE)
    await all_is_kept(deployed, worker, 100)


async def test_kafka_is_gone(stack: EmbeddedStack, deploy: Deploy) -> None:
    deployed, worker = await about_to("commit", "commands", deploy)
    stack.kafka.kill()
    try:
        worker.resume()
        assert stop(worker) in (IN_GOOD_ORDER, TOO_LATE)
    finally:
        stack.kafka.start()
    await all_is_kept(deployed, worker, 100)


async def test_elasticsearch_does_not_answer(stack: EmbeddedStack, deploy: Deploy) -> None:
    deployed, worker = await about_to("bulk", "views", deploy)
    async with suspended(stack.elasticsearch, deployed.settings):
        worker.resume()
        assert stop(worker) == IN_GOOD_ORDER
    assert "abandoning a chunk" in worker.log_text
    await all_is_kept(deployed, worker, 100)


async def test_a_second_signal(stack: EmbeddedStack, deploy: Deploy) -> None:
    """It does not wait for what the first one waits for."""
    deployed, worker = await about_to("commit", "commands", deploy)
    async with suspended(stack.kafka, deployed.settings):
        worker.resume()
        os.kill(worker.pid, signal.SIGTERM)
        await wait_until(lambda: "stopping" in worker.log_text)

        def is_left() -> bool:
            """Within a second it is the same request: systemd and a supervisor send one each."""
            os.kill(worker.pid, signal.SIGTERM)
            return not worker.is_running

        await wait_until(is_left)
        assert worker.wait() == AT_ONCE
    assert worker.log_text.splitlines()[-1] == "error: asked to stop a second time: leaving at once"
    await all_is_kept(deployed, worker, 100)


async def test_a_handler_that_blocks_the_event_loop(deploy: Deploy) -> None:
    """Nothing depends on the event loop."""
    deployed = deploy("views", partitions=1)
    app = "tests.integration.defective_worker"
    worker = deployed.start("commands", app=app, DEFECT="the handler blocks")
    async with new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(10))
    await wait_until(lambda: "blocking" in worker.log_text)
    assert stop(worker) == TOO_LATE
    assert worker.log_text.splitlines()[-1] == "error: not stopped in 9 s: leaving as it is"
    await all_is_kept(deployed, worker, 10)
