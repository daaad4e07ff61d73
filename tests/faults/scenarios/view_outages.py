"""F6: Elasticsearch is killed and restarted, then fails in every way that a server can."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial

from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.faults.worker_memory import watching_memory
from tests.harness.checks import require
from tests.harness.elasticsearch_proxy import Cut, Fault, FaultProxy, Refuse, RejectItems, Stall
from tests.harness.traffic import Traffic, open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_FAULTS: tuple[Fault, ...] = (
    Refuse(429),
    Refuse(503),
    Stall("before"),
    Stall("after"),
    Cut("before"),
    Cut("response"),
    Cut("after"),
    RejectItems(0.5),
)


async def fail_elasticsearch(run: Run) -> None:
    """Make Elasticsearch fail: deciding continues, the view worker waits and then catches up.

    Its memory must not grow with the events that wait, and the view must miss nothing in the end.
    """
    async with FaultProxy(run.stack.elasticsearch_url, run.rng).serving() as proxy:
        deployed = await run.deploy(
            *("commands", "views"),
            elasticsearch_url=proxy.url,
            partitions=4,
            view_cache_documents=1000,  # so that only waiting events can make memory grow
        )
        stream = generate(sys.maxsize, run.seed, rejected=0.05, duplicates=0.05)
        async with (
            open_traffic(deployed, records_of(stream), rate=run.pick(200.0, 600.0)) as traffic,
            open_view_positions(deployed, run.stack) as view,
        ):
            traffic.burst(10_000)
            await traffic.wait_for_decided(10_000)
            await view.catch_up()
            async with watching_memory(*deployed.of("views")) as memory:
                await _stop_elasticsearch(run, traffic, view)
                await _fail_in_every_way(run, proxy, traffic, view)
                await traffic.finish()
                await view.catch_up()
                memory.check(run)
        report = await run.verify(deployed, sent=traffic.sent)
    require(report.known_missing == 0, f"{report.known_missing} documents are in dead letters")
    run.result.figures["requests that failed"] = proxy.met.total()
    run.result.figures["items that were rejected"] = proxy.rejected


async def _stop_elasticsearch(run: Run, traffic: Traffic, view: ViewPositions) -> None:
    """Kill Elasticsearch, and start it again much later."""
    begin, decided = time.monotonic(), traffic.decided
    try:
        await asyncio.to_thread(run.stack.elasticsearch.kill)
        run.result.faults += 1
        await _keep_deciding(run, traffic, run.pick(8, 180), "without Elasticsearch")
        run.result.figures |= {
            "decided while Elasticsearch was away": traffic.decided - decided,
            "deciding's longest silence meanwhile s": round(traffic.longest_silence(begin), 1),
        }
    finally:
        await asyncio.to_thread(run.stack.elasticsearch.start)
    back, written = time.monotonic(), await view.written()
    await view.catch_up()
    seconds = time.monotonic() - back
    rate = (await view.written() - written) / seconds
    run.result.figures["catching up s"] = round(seconds, 1)
    run.result.figures["catching up documents/s"] = round(rate)


async def _fail_in_every_way(
    run: Run, proxy: FaultProxy, traffic: Traffic, view: ViewPositions
) -> None:
    """Make one fault after the other, in random order; the view must catch up after each."""
    for fault in run.rng.sample(_FAULTS, len(_FAULTS)):
        met = partial(proxy.met.__getitem__, fault)
        proxy.switch(fault)
        run.result.faults += 1
        await wait_until(met, what=f"requests meet {fault}")
        # A request times out after 30 s: at full scale it does, and is sent again.
        held = run.pick(2, 35 if isinstance(fault, Stall) else 20)
        await _keep_deciding(run, traffic, held, f"with {fault}")
        proxy.switch(None)
        await view.catch_up()


async def _keep_deciding(run: Run, traffic: Traffic, seconds: int, what: str) -> None:
    begin = time.monotonic()
    while (gone := time.monotonic() - begin) < seconds:
        run.say(int(gone), seconds, what)
        await traffic.until_deciding()


F6 = Scenario("F6", "Elasticsearch away, then failing in every way", fail_elasticsearch)
