"""V6: all nodes of Elasticsearch are restarted, one after the other, under traffic and searches."""

from __future__ import annotations

import asyncio

from tests.faults.scenario import Run, Scenario
from tests.faults.search_nodes import SearchNodes, fail_nodes


async def restart_all_nodes(run: Run) -> None:
    """Restart each node when all copies are there again: searches go on, and writes are seen."""
    await fail_nodes(run, _restart_all)


async def _restart_all(found: SearchNodes) -> None:
    run, nodes = found.run, found.cluster.nodes
    rounds = run.pick(1, 2)
    for number in range(rounds * len(nodes)):
        node = nodes[number % len(nodes)]
        run.say(number, rounds * len(nodes))
        await asyncio.to_thread(node.stop)
        run.result.faults += 1
        await asyncio.to_thread(node.start)
        await found.until_green()
        await found.traffic.until_deciding()


V6 = Scenario("V6", "a rolling restart of Elasticsearch", restart_all_nodes)
