"""F1: kill -9 of random workers amid work."""

from __future__ import annotations

import time
from statistics import median, quantiles

from deploy.samples.commands import generate
from tests.faults.scenario import Run, Scenario
from tests.harness.traffic import open_traffic, records_of

_RATE = 100.0  # commands per second that go on all the while, to hear when a partition is silent


async def kill_workers(run: Run) -> None:
    """Three command workers share six partitions; one at a time is killed amid a burst.

    In one case of four the next kill comes while the group still recovers, and now and then the
    view worker dies as well.
    """
    kills, commands = run.pick((4, 8_000), (30, 100_000))
    deployed = await run.deploy(
        *("commands", "commands", "commands", "views"),
        partitions=6,
        session_timeout=run.pick(6.0, 10.0),  # ten is the default
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.2)
    burst = commands // kills // 2
    silences = []
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.decides_again()
        for number in range(1, kills + 1):
            traffic.burst(burst)
            await traffic.wait_for_decided(traffic.decided + run.rng.randrange(1, burst))
            victim = run.rng.choice(deployed.of("commands"))
            victims = [victim, *(deployed.of("views") if run.rng.random() < 0.2 else ())]
            killed = time.monotonic()
            for worker in victims:
                worker.kill()
                worker.start()
            run.result.faults += len(victims)
            if number == kills or run.rng.random() >= 0.25:
                await traffic.decides_again()
                silences.append(traffic.longest_silence(killed))
            run.say(number, kills)
        traffic.burst(max(0, commands - traffic.sent))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    run.result.figures |= {
        "recovery p50 s": round(median(silences), 1),
        "recovery p99 s": round(quantiles(silences, n=100, method="inclusive")[98], 1),
        "session timeout s": deployed.settings.session_timeout,
    }


F1 = Scenario("F1", "kill -9 of random workers", kill_workers)
