"""V1: a client that writes and then reads with the token sees its write."""

from __future__ import annotations

import sys

from agents.client import open_commands, open_queries
from deploy.samples.commands import generate
from tests.faults.reading import Reading
from tests.faults.scenario import Run, Scenario
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import open_view_positions

_CLIENTS = 8
_RATE = 200.0  # commands per second of others


async def read_what_was_written(run: Run) -> None:
    """Read written users while view workers are killed."""
    pairs, kills = run.pick((500, 2), (10_000, 20))
    await write_and_read(run, pairs=pairs, kills=kills)


async def write_and_read(run: Run, *, pairs: int, kills: int) -> None:
    """Register users and look for each at once, by id and by a fragment of the email.

    Half of the time a client registers two and gives the query both tokens as one. Other commands
    keep coming, and now and then a view worker is killed.
    """
    deployed = await run.deploy("commands", "views", "views", partitions=4)
    stream = generate(sys.maxsize, run.seed, rejected=0.05, duplicates=0.05)
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_view_positions(deployed, run.stack) as view,
        open_commands(deployed.client) as commands,
        open_queries(deployed.client) as queries,
    ):
        await traffic.until_deciding()
        await view.catch_up()
        reading = Reading(commands, queries, clients=_CLIENTS)
        for part in range(kills + 1):
            run.say(reading.pairs, pairs)
            await reading.run(pairs * (part + 1) // (kills + 1) - reading.pairs)
            if part == 0:
                run.result.figures |= reading.figures("before any kill")
            if part < kills:
                victim = run.rng.choice(deployed.of("views"))
                victim.kill()
                victim.start()
                run.result.faults += 1
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent + reading.users)
    run.result.figures |= {
        "pairs": reading.pairs,
        "stale answers": 0,  # the first one would have ended it
        **reading.figures("with kills"),
    }


V1 = Scenario("V1", "writing, then reading with the token", read_what_was_written)
