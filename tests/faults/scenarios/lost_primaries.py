"""V5: the node with the primary dies amid writes that its replicas do not have yet."""

from __future__ import annotations

import asyncio

from deploy.embedded.processes import ServerProcess
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.faults.search_nodes import SearchNodes, fail_nodes

_BURST = 500  # commands


async def lose_primaries(run: Run) -> None:
    """Kill the node with the primary again and again, in clusters of three and of two nodes.

    Before that its replicas are cut off, so it has documents which nobody else has, and for which
    no worker got an answer. Half of the time a worker is killed meanwhile, and sends them again:
    that a document is there already says nothing about the replicas.
    """
    for nodes in (3, 2):
        await fail_nodes(run, _kill_primaries, nodes=nodes)


async def _kill_primaries(found: SearchNodes) -> None:
    run, nodes, kills = found.run, len(found.cluster.nodes), found.run.pick(2, 3)
    ahead = 0
    for number in range(1, kills + 1):
        primary, master = await found.primary(), await found.master()
        await _cut_off_amid_writes(found, primary)
        writes = await _writes_of_its_own(found, primary, more_than=0)
        if run.rng.random() < 0.5:
            await _replace_worker(found)
            writes = await _writes_of_its_own(found, primary, more_than=writes)
        ahead += writes > 0
        primary.kill()
        found.network.lose(())
        run.result.faults += 1
        if nodes > 2 or primary is not master:
            await found.primary(not_on=primary)
            await found.until_all_work()
        await asyncio.to_thread(primary.start)
        await found.until_green()
        await found.until_all_work()
        run.say(number, kills, f"{nodes} nodes")
    run.result.figures[f"{nodes} nodes: primaries killed with writes of their own"] = ahead


async def _cut_off_amid_writes(found: SearchNodes, primary: ServerProcess) -> None:
    """Let nothing that the primary sends arrive at its replicas any more, amid a burst."""
    decided = found.traffic.decided
    found.traffic.burst(_BURST)
    await found.traffic.wait_for_decided(decided + found.run.rng.randrange(1, _BURST))
    found.network.lose((found.party(primary), other) for other in found.others(primary))


async def _writes_of_its_own(found: SearchNodes, primary: ServerProcess, *, more_than: int) -> int:
    """Wait until a node has more writes than this of which no replica is known to have them.

    Returns:
        How many it has. No more than before, if it finds out first that it is cut off: then others
        have replaced it, or it does without its replica.
    """
    writes = 0

    async def has_more_or_is_alone() -> bool:
        nonlocal writes
        writes = await found.unreplicated(primary)
        return writes > more_than or not await found.sees_all(primary)

    await wait_until(
        has_more_or_is_alone, timeout=180, what="the primary writes, or notices that it is cut off"
    )
    return writes


async def _replace_worker(found: SearchNodes) -> None:
    """Kill a view worker, and wait until its partitions are projected again from where it was."""
    workers = found.deployed.of("views")

    def begun() -> int:
        return sum(worker.log_text.count("continuing at position") for worker in workers)

    before, victim = begun(), found.run.rng.choice(workers)
    victim.kill()
    victim.start()
    await wait_until(
        lambda: begun() > before, timeout=180, what="a worker takes the partitions of the other"
    )


V5 = Scenario("V5", "the node with the primary dies amid writes", lose_primaries)
