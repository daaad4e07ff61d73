"""F1: kill -9 of random workers under load."""

from __future__ import annotations

import time
from statistics import median, quantiles

from deploy.samples.commands import generate
from tests.faults.scenario import Run, Scenario
from tests.harness.traffic import open_traffic, records_of

_RATE = 100.0  # commands per second, in addition to bursts: they show when a partition pauses


async def kill_workers(run: Run) -> None:
    """Kill one of three command workers at a time, during bursts; they share six partitions.

    In a quarter of the cases the next kill comes while the group still recovers, and in a fifth the
    view worker is killed as well.
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
        await traffic.until_deciding()
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
                await traffic.until_deciding()
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
