"""F2: workers come and go in good order, and the others share the partitions anew each time."""

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

# Commands per second, over all partitions. Far below what one worker decides: a backlog would add
# its own waiting to that for the rebalance.
_RATE = 100.0


async def scale_workers(run: Run) -> None:
    """1 -> 3 -> 2 -> 3 workers, a restart of one after the other, then as chance has it.

    First with few partitions, then with many. The pause of a change is what any command waited for
    its outcome at most, from the moment at which workers were started or told to stop.
    """
    for partitions, changes in run.pick(((12, 9), (24, 2)), ((12, 20), (100, 20))):
        deployed = await run.deploy("commands", "views", partitions=partitions, session_timeout=10)
        stream = generate(1_000_000, run.rng.randrange(1 << 30), duplicates=0.1)
        async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
            await traffic.decides_again()
            await traffic.decides_again()  # what piled up before the first worker ran is gone
            pauses = await _scale(run, deployed, traffic, changes)
            await traffic.finish()
        await run.verify(deployed, sent=traffic.sent)
        run.result.figures |= {
            f"pause p50 s, {partitions} partitions": round(median(pauses), 2),
            f"pause max s, {partitions} partitions": round(max(pauses), 2),
        }


async def _scale(run: Run, deployed: Deployment, traffic: Traffic, changes: int) -> list[float]:
    """The changes, one after the other; the seconds that each made somebody wait."""
    pauses: list[float] = []

    async def measure(change: Awaitable[None]) -> None:
        begin = time.monotonic()
        await change
        # Partitions that moved are the last to decide again; only then is it sure that those which
        # were kept do so after the rebalance, too, and not before it.
        await traffic.decides_again()
        await traffic.decides_again()
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
    """Start or stop as many command workers at once as it takes to have so many."""
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
