"""F14: the command topic is deleted and created again amid work, and so is an output topic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from contextlib import nullcontext
from itertools import islice
from typing import Any

from agents.user_audit import verify_users
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.kafka.clients import new_producer, started
from streams.kafka.log_reader import open_logs
from streams.kafka.topics import partitions_of
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.command_line import Workers, cqrs, running_workers
from tests.harness.deployments import create_again
from tests.harness.traffic import counting, open_traffic, records_of, send

_BURST = 1000  # commands
_REFUSAL = "the topic was deleted and created again"


async def create_topics_again(run: Run) -> None:
    """Delete the command topic and fill a new one, so that it is longer than the old one was.

    No command of the new topic may be decided before it is adopted, and each has its outcome then.
    In every second round workers are suspended meanwhile: they see nothing but the next records.
    """
    deployed = await run.deploy("views")
    log = deployed.folder / "cqrs-worker.log"
    workers = run.resources.enter_context(running_workers(deployed.settings, "commands", 2, log))
    rounds = run.pick(2, 10)
    for number in range(rounds):
        await _decide_some(run, deployed)
        logged = len(workers.log_text)
        with workers.suspended() if number % 2 else nullcontext():
            await create_again(deployed.settings, deployed.names.commands)
            commands = await _fill(run, deployed, number)
        run.result.faults += 1
        for tp in partitions_of(deployed.settings, deployed.names.commands):
            line = f"{tp.topic}[{tp.partition}]: {_REFUSAL}"
            await wait_until(
                lambda line=line, logged=logged: line in workers.log_text[logged:],  # type: ignore[misc]
                timeout=90,
                what=f"the workers refuse the new topic ({line})",
            )
        await _adopt(run, deployed, commands)
        run.say(number + 1, rounds)
    _check_running(workers)
    await _lose_outcomes(run, deployed)
    _check_running(workers)


async def _decide_some(run: Run, deployed: Deployment) -> None:
    """Send a burst and return amid it: the rest will be lost with the topic."""
    stream = generate(_BURST, run.rng.randrange(1 << 30), duplicates=0.1)
    async with open_traffic(deployed, records_of(stream)) as traffic:
        traffic.burst(_BURST)
        await traffic.wait_for_decided(run.rng.randrange(1, _BURST // 2))


async def _fill(run: Run, deployed: Deployment, number: int) -> list[dict[str, Any]]:
    """Send more commands than the former topic had in this round, and return them."""
    settings = deployed.settings
    amount = 2 * _BURST * (number + 1)
    commands = list(generate(amount, run.rng.randrange(1 << 30), duplicates=0.1))
    async with started(new_producer(settings), settings) as producer:
        await send(producer, deployed, commands)
    return commands


async def _adopt(run: Run, deployed: Deployment, commands: list[dict[str, Any]]) -> None:
    """Adopt the new topic, of which nothing was decided; then each command has its outcome."""
    settings = deployed.settings
    ids = {command["id"] for command in commands}
    require(not await _answered(deployed, ids), "commands of the new topic were decided at once")
    try:
        await verify_users(settings, timeout=1)
    except Fatal as error:
        require(_REFUSAL in str(error), f"verify says of the new topic: {error}")
    else:
        require(False, "verify accepts the new topic")
    done = await asyncio.to_thread(cqrs, settings, "topics", "adopt", "--all", "--yes")
    require(done.returncode == 0, f"`cqrs topics adopt` failed: {done.stderr}")
    report = await run.verify(deployed, sent=len(commands))
    require(report.commands == len(commands), "not every command of the new topic was decided")
    require(await _answered(deployed, ids) == len(ids), "a command of the new topic has no outcome")


async def _answered(deployed: Deployment, ids: Collection[str]) -> int:
    """Return how many of these commands have an outcome."""
    partitions = partitions_of(deployed.settings, deployed.names.outcomes)
    found = set()
    async with open_logs(deployed.settings, partitions) as logs:
        for tp, end in (await logs.end_offsets(partitions)).items():
            async for records in logs.read(tp, 0, end):
                found |= {json.loads(record.value).get("commandId") for record in records}
    return len(found.intersection(ids))


async def _lose_outcomes(run: Run, deployed: Deployment) -> None:
    """Delete the outcomes and create their topic again: deciding continues, `verify` tells."""
    await _decide_some(run, deployed)
    await create_again(deployed.settings, deployed.names.outcomes)
    run.result.faults += 1
    stream = generate(1_000_000, run.rng.randrange(1 << 30))
    async with (
        counting(deployed) as outcomes,
        started(new_producer(deployed.settings), deployed.settings) as producer,
    ):
        sent = await send(producer, deployed, islice(stream, _BURST))
        await outcomes.reach(sent, timeout=90)
    report = await verify_users(deployed.settings, timeout=120)
    require(report.findings["I7"].first, "the outcomes were deleted, and verify finds all of them")


def _check_running(workers: Workers) -> None:
    require(workers.is_running, f"cqrs worker has ended: {workers.log_text.splitlines()[-1:]}")


F14 = Scenario("F14", "topics deleted and created again amid work", create_topics_again)
