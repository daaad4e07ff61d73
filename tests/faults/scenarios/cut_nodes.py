"""V8: the node with the primary is cut off from the other nodes; clients still reach all."""

from __future__ import annotations

import time

from deploy.embedded.processes import ServerProcess
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.faults.search_nodes import SearchNodes, fail_nodes
from tests.harness.network import Link, Party

_BURST = 300  # commands
_PAIRS = 8  # that are written and read while a node is cut off
_KINDS = ("both ways", "what it sends", "with a worker", "without a worker")


async def cut_nodes_off(run: Run) -> None:
    """Cut the node with the primary off from the other two, which elect another one.

    It still answers, of what it had: nobody may take that for the view that has a write. It keeps
    nothing that was written to it meanwhile. A worker may be on its side, and reach nobody else, or
    on the other side.
    """
    await fail_nodes(run, _cut_off)


async def _cut_off(found: SearchNodes) -> None:
    run = found.run
    cuts = [(kind, seconds) for seconds in run.pick((0.0,), (0.0, 60.0)) for kind in _KINDS]
    for number, (kind, seconds) in enumerate(cuts, 1):
        run.say(number, len(cuts), kind)
        primary = await found.primary()
        found.traffic.burst(_BURST)
        begin = time.monotonic()
        found.network.lose(_links(found, primary, kind))
        run.result.faults += 1
        await found.primary(not_on=primary)
        promoted, pairs = time.monotonic(), found.reading.pairs
        if kind != "with a worker":  # whose partitions nobody projects meanwhile
            await wait_until(
                lambda: found.reading.pairs >= pairs + _PAIRS,  # noqa: B023
                timeout=300,
                what="clients see their writes",
            )
        seen = time.monotonic()
        await wait_until(lambda: time.monotonic() - begin >= seconds, timeout=seconds + 10)  # noqa: B023
        found.network.lose(())
        await found.until_green()
        await found.until_all_work()
        name = f"cut {number}, {kind}"
        run.result.figures |= {
            f"{name}: a replica is promoted s": round(promoted - begin, 1),
            f"{name}: clients see their writes s": round(seen - promoted, 1),
        }


def _links(found: SearchNodes, primary: ServerProcess, kind: str) -> list[Link]:
    one, others = found.party(primary), found.others(primary)
    ways = [(one, other) for other in others]
    worker = Party(found.deployed.of("views")[0].pid)
    if kind == "with a worker":
        ways += [(worker, other) for other in others]
    if kind == "without a worker":
        ways += [(worker, one)]
    if kind == "what it sends":
        return ways
    return [link for way in ways for link in (way, way[::-1])]


V8 = Scenario("V8", "the node with the primary is cut off from the others", cut_nodes_off)
