"""V7: the disks of Elasticsearch are full, so it makes the index read-only, and then they are not.

The disks are real, and have space: what is full is a setting (the watermarks). Elasticsearch then
does what it does of a full disk, and undoes it by itself when there is space again.
"""

from __future__ import annotations

import time

from deploy.waiting import wait_until
from streams.elasticsearch.connection import translating
from tests.faults.scenario import Run, Scenario
from tests.faults.search_nodes import SearchNodes, fail_nodes
from tests.harness.checks import require

_BURST = 1000  # commands
_DISK = "cluster.routing.allocation.disk"
_BLOCK = "index.blocks.read_only_allow_delete"
# The shortest interval in which Elasticsearch looks at its disks; by default every 30 s.
_CHANGES = {"cluster.info.update.interval": "10s", f"{_DISK}.threshold_enabled": "true"}
_FULL, _FREE = "1000tb", "1b"  # of space that has to be free


async def fill_the_disks(run: Run) -> None:
    """Let the disks be full: deciding and searching go on, projecting waits, and then catches up.

    The nodes are two, so one copy of the index is on each full disk.
    """
    changes = {**_CHANGES, **_watermarks(_FREE)}
    await fail_nodes(run, _fill, nodes=2, changes=changes)


async def _fill(found: SearchNodes) -> None:
    run = found.run
    for number in range(1, run.pick(1, 5) + 1):
        await _let_disks_have(found, _FULL)
        run.result.faults += 1
        failures, decided = found.outages.failures, found.traffic.decided
        begin, held = time.monotonic(), run.pick(5.0, 60.0)
        found.traffic.burst(_BURST)
        await found.traffic.wait_for_decided(decided + _BURST)
        await found.traffic.until_deciding()
        await wait_until(lambda: time.monotonic() - begin >= held, timeout=held + 60)  # noqa: B023
        searched = found.outages.failures == failures
        require(searched, "a query failed, although a full disk can be read")
        await _let_disks_have(found, _FREE)
        await found.until_all_work()
        run.say(number, run.pick(1, 5))


async def _let_disks_have(found: SearchNodes, space: str) -> None:
    """Demand so much free space, and wait until the index is read-only, or is not any more."""
    with translating(found.client):
        await found.client.cluster.put_settings(persistent=_watermarks(space))

    async def has_changed() -> bool:
        with translating(found.client):
            settings = await found.client.indices.get_settings(
                index=found.index, flat_settings=True
            )
        is_read_only = settings[found.index]["settings"].get(_BLOCK) == "true"
        return is_read_only is (space == _FULL)

    await wait_until(has_changed, timeout=120, what="Elasticsearch has looked at its disks")


def _watermarks(space: str) -> dict[str, str]:
    return {f"{_DISK}.watermark.{name}": space for name in ("low", "high", "flood_stage")}


V7 = Scenario("V7", "full disks of Elasticsearch, then space again", fill_the_disks)
