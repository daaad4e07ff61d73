"""F21: the clocks of workers and producers are more than an hour wrong, in both directions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any

from deploy.samples.commands import generate
from deploy.supervisor import Role
from tests.faults.scenario import Run, Scenario
from tests.faults.wrong_clock import APPS, clock_ahead
from tests.harness.traffic import Record, open_traffic, record_of

# More than a broker accepts by default: it refuses records that are an hour ahead of its clock.
_WRONG_S = 3_900.0
_RATE = 100.0  # commands per second
_ROLES: tuple[Role, ...] = ("commands", "views")


async def set_clocks_wrong(run: Run) -> None:
    """Kill workers whose clocks are two hours apart: each decides what the other began.

    Every third command is from a producer that is ahead, every third from one that is behind, both
    in what the command says and in its record.
    """
    kills, burst = run.pick((4, 500), (30, 2_000))
    deployed = await run.deploy(partitions=4, session_timeout=3.0)
    clocks = {
        deployed.start(role, app=APPS[role], **clock_ahead(ahead)): ahead
        for role in _ROLES
        for ahead in (_WRONG_S, -_WRONG_S)
    }
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    async with open_traffic(deployed, _with_wrong_clocks(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number in range(1, kills + 1):
            traffic.burst(burst)
            await traffic.wait_for_decided(traffic.decided + run.rng.randrange(1, burst))
            victim = deployed.workers[number % len(deployed.workers)]
            victim.kill()
            run.result.faults += 1
            await traffic.until_deciding()
            victim.start(**clock_ahead(clocks[victim]))
            run.say(number, kills)
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


def _with_wrong_clocks(commands: Iterator[Mapping[str, Any]]) -> Iterator[Record]:
    for command, ahead in zip(commands, cycle((0.0, _WRONG_S, -_WRONG_S)), strict=False):
        says = datetime.fromisoformat(command["timestamp"].replace("Z", "+00:00"))
        moved = (says + timedelta(seconds=ahead)).isoformat()
        record = record_of({**command, "timestamp": moved})
        yield record._replace(timestamp_ms=int((time.time() + ahead) * 1000))


F21 = Scenario("F21", "clocks of workers and producers an hour wrong", set_clocks_wrong)
