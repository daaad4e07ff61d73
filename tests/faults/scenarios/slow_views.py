"""F11: a view worker is ten times slower than its input, for a long time."""

from __future__ import annotations

import sys
import time

import orjson
from aiokafka.structs import TopicPartition

from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.faults.worker_memory import watching_memory
from tests.harness.checks import require
from tests.harness.elasticsearch_proxy import Delay, FaultProxy
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_PARTITIONS = 2
_RATE = 500.0  # commands per second
_CHUNK = 200  # records
_REQUESTS = 2  # per chunk, one after the other: read documents, write them
_SLOWDOWN = 10
# For every request, with the partitions side by side.
_DELAY_S = _SLOWDOWN * _PARTITIONS * _CHUNK / _REQUESTS / _RATE
_CATCH_UP_TIMEOUT_S = 600.0  # when the delay is over


async def slow_everything(run: Run) -> None:
    """Delay Elasticsearch: events wait on their topic, and no position passes unfinished work."""
    async with FaultProxy(run.stack.elasticsearch_url, run.rng).serving() as proxy:
        deployed = await run.deploy(
            *("commands", "views"),
            elasticsearch_url=proxy.url,
            partitions=_PARTITIONS,
            max_chunk_records=_CHUNK,
            view_cache_documents=0,  # so that every chunk reads its documents back
        )
        stream = generate(sys.maxsize, run.seed, rejected=0.05, duplicates=0.05)
        async with (
            open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
            open_view_positions(deployed, run.stack) as view,
        ):
            await traffic.until_deciding()
            await view.catch_up()
            finished = _FinishedWork(view)
            async with watching_memory(*deployed.of("views")) as memory:
                proxy.switch(Delay(_DELAY_S))
                run.result.faults += 1
                await _run_slowly(run, view, finished)
                proxy.switch(None)
                await traffic.finish()
                await finished.catch_up()
                memory.check(run)
        report = await run.verify(deployed, sent=traffic.sent)
    require(finished.events == report.events, "not every event was checked")


async def _run_slowly(run: Run, view: ViewPositions, finished: _FinishedWork) -> None:
    seconds = run.pick(30, 600)
    begin = time.monotonic()
    ends, positions = await view.ends(), await view.positions()
    while (gone := time.monotonic() - begin) < seconds:
        run.say(int(gone), seconds)
        await finished.check()
    written = sum((await view.ends()).values()) - sum(ends.values())
    projected = sum((await view.positions()).values()) - sum(positions.values())
    slower = written / max(projected, 1)
    run.result.figures |= {
        "input events/s": round(written / seconds),
        "projected events/s": round(projected / seconds),
        "times slower": round(slower, 1),
    }
    require(slower >= _SLOWDOWN / 2, f"the view was only {slower:.1f} times slower than its input")


class _FinishedWork:
    """Compares every event that the view's position has passed with its document."""

    def __init__(self, view: ViewPositions) -> None:
        self.events = 0
        self._view = view
        self._checked: dict[TopicPartition, int] = {}

    async def check(self) -> None:
        """Check the events that the position has passed since the last call.

        Raises:
            Failed: a document is older than such an event.
        """
        for tp, position in (await self._view.positions()).items():
            newest: dict[str, int] = {}
            async for records in self._view.logs.read(tp, self._checked.get(tp, 0), position):
                self.events += len(records)
                newest.update(
                    (record.key.decode(), orjson.loads(record.value)["sequence"])
                    for record in records
                )
            versions = await self._view.versions(newest)
            for key, sequence in newest.items():
                require(
                    versions.get(key, 0) >= sequence,
                    f"{tp.topic}[{tp.partition}] was at position {position} when the document of "
                    f"{key} had version {versions.get(key, 0)} and not yet {sequence}",
                )
            self._checked[tp] = position

    async def catch_up(self) -> None:
        """Check until the view has all events that exist now."""
        ends = await self._view.ends()

        async def reached() -> bool:
            await self.check()
            return all(self._checked[tp] >= end for tp, end in ends.items())

        await wait_until(reached, timeout=_CATCH_UP_TIMEOUT_S, what="the view has all events")


F11 = Scenario("F11", "a view ten times slower than its input", slow_everything)
