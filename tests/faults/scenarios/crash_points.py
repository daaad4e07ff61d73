"""F9: a worker is killed exactly before and after each step of a transaction and of a view."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from itertools import zip_longest
from typing import get_args

from deploy.samples.commands import generate
from deploy.supervisor import Role
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.crash_points import APPS, COMMAND_STEPS, VIEW_STEPS, Moment, Point
from tests.harness.traffic import open_traffic, records_of

_LANES = 4  # deployments side by side: most of the time they wait for a session to end
_RATE = 100.0  # commands per second


async def crash_at_every_point(run: Run) -> None:
    """Kill a worker at each point; it restarts and takes over, armed with the next point."""
    rounds = run.pick(1, 5)
    points = [
        Point("kill", moment, step, run.rng.randint(1, 4))
        for _ in range(rounds)
        for step in (*COMMAND_STEPS, *VIEW_STEPS)
        for moment in get_args(Moment)
    ]
    lanes = [points[number::_LANES] for number in range(_LANES)]
    await asyncio.gather(*(crash_at(run, lane, total=len(points)) for lane in lanes))


async def crash_at(run: Run, points: Sequence[Point], *, total: int) -> None:
    """Kill workers of one deployment at these points in turn; `total` is for the progress."""
    deployed = await run.deploy(partitions=2, session_timeout=3.0)
    stream = generate(1_000_000, seed=run.rng.randrange(1 << 30), duplicates=0.1)

    async def keep_crashing(role: Role) -> None:
        due = [point for point in points if (point.step in VIEW_STEPS) == (role == "views")]
        worker = run.start(deployed, role, due[0]) if due else deployed.start(role)
        for point, following in zip_longest(due, due[1:]):
            await wait_until(
                lambda: worker.exit_code is not None,
                timeout=180,
                what=f"a worker dies {point.moment} {point.step}",
            )
            require(worker.exit_code == -signal.SIGKILL, f"it ended with {worker.exit_code}")
            run.result.faults += 1
            run.say(run.result.faults, total)
            worker.start(**following.environment() if following else {})

    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await asyncio.gather(*map(keep_crashing, APPS))
        await traffic.until_deciding()
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


F9 = Scenario("F9", "killed exactly before and after each step", crash_at_every_point)
