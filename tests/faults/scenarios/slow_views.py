"""F11: a view worker that is ten times slower than its input, for a long time."""

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
from tests.harness.view_position import ViewProgress, open_view_progress

_PARTITIONS = 2
_RATE = 500.0  # commands per second
_CHUNK = 200  # records
_REQUESTS = 2  # per chunk, one after the other: read the documents back, write them
_SLOWER = 10
# Seconds that every request takes, with the partitions side by side.
_DELAY = _SLOWER * _PARTITIONS * _CHUNK / _REQUESTS / _RATE
_PATIENCE = 600.0  # seconds that the view gets to catch up when the delay is over


async def slow_everything(run: Run) -> None:
    """Events pile up on their topic, not in the worker, and no position passes unfinished work."""
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
            open_view_progress(deployed, run.stack) as progress,
        ):
            await traffic.decides_again()
            await progress.catch_up()
            finished = _FinishedWork(progress)
            async with watching_memory(*deployed.of("views")) as memory:
                proxy.switch(Delay(_DELAY))
                run.result.faults += 1
                await _run_slowly(run, progress, finished)
                proxy.switch(None)
                await traffic.finish()
                await finished.catch_up()
                memory.check(run)
        report = await run.verify(deployed, sent=traffic.sent)
    require(finished.events == report.events, "not every event was checked when it was passed")


async def _run_slowly(run: Run, progress: ViewProgress, finished: _FinishedWork) -> None:
    seconds = run.pick(30, 600)
    begin = time.monotonic()
    ends, positions = await progress.ends(), await progress.positions()
    while (gone := time.monotonic() - begin) < seconds:
        run.say(int(gone), seconds)
        await finished.check()
    written = sum((await progress.ends()).values()) - sum(ends.values())
    projected = sum((await progress.positions()).values()) - sum(positions.values())
    slower = written / max(projected, 1)
    run.result.figures |= {
        "input events/s": round(written / seconds),
        "projected events/s": round(projected / seconds),
        "times slower": round(slower, 1),
    }
    require(slower >= _SLOWER / 2, f"the view was only {slower:.1f} times slower than its input")


class _FinishedWork:
    """Holds every event that a committed position has passed against its document."""

    def __init__(self, progress: ViewProgress) -> None:
        self.events = 0
        self._progress = progress
        self._checked: dict[TopicPartition, int] = {}

    async def check(self) -> None:
        """Check the events that were passed since the last time.

        Raises:
            Failed: a document is not as new as an event that its position has passed.
        """
        for tp, position in (await self._progress.positions()).items():
            newest: dict[str, int] = {}
            async for records in self._progress.logs.read(tp, self._checked.get(tp, 0), position):
                self.events += len(records)
                newest.update(
                    (record.key.decode(), orjson.loads(record.value)["sequence"])
                    for record in records
                )
            versions = await self._progress.versions(newest)
            for key, sequence in newest.items():
                require(
                    versions.get(key, 0) >= sequence,
                    f"{tp.topic}[{tp.partition}] was at position {position} when the document of "
                    f"{key} had version {versions.get(key, 0)} and not yet {sequence}",
                )
            self._checked[tp] = position

    async def catch_up(self) -> None:
        """Check until the view has all events that there are now."""
        ends = await self._progress.ends()

        async def reached() -> bool:
            await self.check()
            return all(self._checked[tp] >= end for tp, end in ends.items())

        await wait_until(reached, timeout=_PATIENCE, what="the view has all events")


F11 = Scenario("F11", "a view ten times slower than its input", slow_everything)
