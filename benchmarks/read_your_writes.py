"""How long a query with a token takes, from the outcome to the answer, on a stack of its own.

    python -m benchmarks.read_your_writes --pairs 500

One client, then eight, that register users and look for them at once, by id and by a fragment of
the email; without other commands, then with 200 and 1,000 per second beside them. One worker
decides and one projects. Prints JSON, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from agents.user_client import open_commands
from agents.user_queries import open_queries
from deploy.embedded.stack import EmbeddedStack
from deploy.faults.deployment import create_user_topics, new_settings, open_deployment
from deploy.faults.scenarios.reading_writes import Reading
from deploy.faults.traffic import open_traffic, records_of
from deploy.faults.view_progress import open_view_progress
from deploy.generate import generate


async def measure(
    stack: EmbeddedStack, pairs: int, clients: int, rate: float
) -> dict[str, int | float]:
    """A new deployment, at work before it is measured."""
    settings = new_settings(stack, partitions=4)
    await create_user_topics(settings)
    stream = generate(sys.maxsize, rejected=0.0, duplicates=0.0)
    with open_deployment(settings, ("commands", "views")) as deployed:
        async with (
            open_traffic(deployed, records_of(stream), rate=rate) as traffic,
            open_view_progress(deployed, stack) as progress,
            open_commands(settings) as commands,
            open_queries(settings) as queries,
        ):
            traffic.burst(2000)
            await traffic.wait_for_decided(2000)
            await progress.catch_up()
            reading = Reading(commands, queries, clients=clients)
            await reading.run(pairs)
            return {
                "clients": clients,
                "other commands/s": rate,
                **reading.figures("outcome to answer"),
            }


def main() -> None:
    """Measure each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=500)
    pairs = parser.parse_args().pairs
    with EmbeddedStack.temporary() as stack:
        for clients, rate in ((1, 0.0), (8, 0.0), (1, 200.0), (8, 200.0), (8, 1000.0)):
            print(json.dumps(asyncio.run(measure(stack, pairs, clients, rate))), flush=True)


if __name__ == "__main__":
    main()
