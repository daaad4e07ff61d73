"""F2: workers are started and stopped in good order, with a rebalance each time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from statistics import median

from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.harness.traffic import Traffic, open_traffic, records_of

# Commands per second, over all partitions. Far below what one worker decides: with a backlog,
# commands would wait for more than the rebalance.
_RATE = 100.0


async def scale_workers(run: Run) -> None:
    """Change to 3, 2 and 3 workers, restart each, then change to random numbers.

    First with few partitions, then with many. The pause of a change is the longest wait of a
    command for its outcome, counted from the moment when workers are started or told to stop.
    """
    for partitions, changes in run.pick(((12, 9), (24, 2)), ((12, 20), (100, 20))):
        deployed = await run.deploy("commands", "views", partitions=partitions, session_timeout=10)
        stream = generate(1_000_000, run.rng.randrange(1 << 30), duplicates=0.1)
        async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
            await traffic.until_deciding()
            await (
                traffic.until_deciding()
            )  # the backlog from before the first worker ran is decided
            pauses = await _scale(run, deployed, traffic, changes)
            await traffic.finish()
        await run.verify(deployed, sent=traffic.sent)
        run.result.figures |= {
            f"pause p50 s, {partitions} partitions": round(median(pauses), 2),
            f"pause max s, {partitions} partitions": round(max(pauses), 2),
        }


async def _scale(run: Run, deployed: Deployment, traffic: Traffic, changes: int) -> list[float]:
    """Make the changes one after the other; return the pause of each, in seconds."""
    pauses: list[float] = []

    async def measure(change: Awaitable[None]) -> None:
        begin = time.monotonic()
        await change
        # The first wait ends when the partitions that moved decide. Only the second one is sure to
        # see the partitions that stayed decide after the rebalance, and not before it.
        await traffic.until_deciding()
        await traffic.until_deciding()
        pauses.append(traffic.longest_wait(begin))
        run.result.faults += 1
        run.say(len(pauses), changes, f"{deployed.settings.partitions} partitions")

    for workers in (3, 2, 3)[:changes]:
        await measure(_change_to(run, deployed, workers))
    for worker in deployed.of("commands"):
        if len(pauses) < changes:
            await measure(deployed.retire(worker))
            await measure(_start(deployed, 1))
    while len(pauses) < changes:
        others = {1, 2, 3} - {len(deployed.of("commands"))}
        await measure(_change_to(run, deployed, run.rng.choice(sorted(others))))
    return pauses


async def _change_to(run: Run, deployed: Deployment, workers: int) -> None:
    """Start or stop command workers at once, until there are `workers`."""
    running = deployed.of("commands")
    if workers > len(running):
        await _start(deployed, workers - len(running))
    else:
        leaving = run.rng.sample(running, len(running) - workers)
        await asyncio.gather(*map(deployed.retire, leaving))


async def _start(deployed: Deployment, workers: int) -> None:
    new = [deployed.start("commands") for _ in range(workers)]

    def take_part() -> bool:
        return all(worker.has_begun for worker in new)

    await wait_until(take_part, timeout=60, what="new workers get partitions")


F2 = Scenario("F2", "workers are added, stopped and restarted one by one", scale_workers)
