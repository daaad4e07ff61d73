"""F24: a program that fails for some users, then a mended one and a replay; all under kills."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from itertools import islice
from typing import get_args

from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import plan, tally
from deploy.waiting import wait_until
from streams.encryption.keys import new_master_key
from tests.faults.scenario import Run, Scenario
from tests.harness import defects
from tests.harness.checks import require
from tests.harness.command_line import cqrs
from tests.harness.crash_points import APPS, COMMAND_STEPS, Moment, Point
from tests.harness.traffic import open_traffic, records_of

_RATE = 100.0  # commands per second
_MAX_REPLAYS = 50

DEFECT = {defects.VARIABLE: "10"}


async def mend_a_program(run: Run) -> None:
    """Decide commands with a defective program, then mend it and replay what is parked.

    In the end everything is as if the program had never been defective: the same commands are
    accepted and rejected, and every document is the fold of the same events.
    """
    kills, commands = run.pick((2, 800), (10, 50_000))
    planned = list(plan(commands, run.seed, duplicates=0.1))
    deployed = await run.deploy(
        "views",
        partitions=run.pick(2, 4),
        session_timeout=3.0,
        dead_letter_order="aggregate",
        control_key=new_master_key(),
    )
    points = _points(run)
    records = records_of(command for command, _ in planned)
    async with open_traffic(deployed, records, rate=_RATE) as traffic:
        for _ in range(2):
            worker = deployed.start("commands", app=APPS["commands"], **DEFECT)
        traffic.burst(commands // 3)
        await traffic.wait_for_decided(1)
        await _kill(run, worker, islice(points, kills), **DEFECT)
        await wait_until(lambda: traffic.sent >= commands // 2, timeout=120)
        await run.verify(deployed)
        for worker in deployed.of("commands"):
            await deployed.retire(worker)
        deployed.start("commands", app=APPS["commands"])
        worker = deployed.start("commands", app=APPS["commands"])
        traffic.burst(commands)
        ended, _ = await asyncio.gather(
            _replay(deployed), _kill(run, worker, islice(points, kills))
        )
        await traffic.finish(timeout=600)
    report = await run.verify(deployed, timeout=300)
    require(ended > 0, "nothing was parked")
    require((report.parked, report.dead) == (0, 0), f"{report.parked} are parked still")
    expected = tally(planned)
    for name in ("accepted", "rejected", "duplicate", "events", "documents"):
        there, due = getattr(report, name), getattr(expected, name)
        require(there == due, f"{there} {name}, {due} were expected")
    run.result.figures["parked commands"] = ended
    run.result.figures["control records"] = report.controls


def _points(run: Run) -> Iterator[Point]:
    while True:
        step, moment = run.rng.choice(COMMAND_STEPS), run.rng.choice(get_args(Moment))
        yield Point("kill", moment, step, run.rng.randint(1, 4))


async def _kill(
    run: Run, worker: WorkerProcess, points: Iterator[Point], **environment: str
) -> None:
    """Start a worker again with each of these points, until it is killed there; at last without."""
    for point in points:
        await asyncio.to_thread(worker.terminate)
        worker.start(**point.environment(), **environment)
        await wait_until(
            lambda: worker.exit_code is not None,
            timeout=180,
            what=f"a worker dies {point.moment} {point.step}",
        )
        require(worker.exit_code == -signal.SIGKILL, f"it ended with {worker.exit_code}")
        run.result.faults += 1
        worker.start(**environment)


async def _replay(deployed: Deployment) -> int:
    """Replay until nothing is parked; return how many commands that ended."""
    ended = 0
    for _ in range(_MAX_REPLAYS):
        arguments = ("dead", "replay", "--all", "--yes", "--json")
        done = await asyncio.to_thread(cqrs, deployed.settings, *arguments, timeout=300)
        if done.returncode == 0:
            said = json.loads(done.stdout)
            ended += int(said["ended"])
            if said["users"] == 0:
                return ended
    require(False, f"a replay does not end: {done.stderr}")
    return ended


F24 = Scenario("F24", "a defective program, a mended one, and a replay", mend_a_program)
