"""How much memory a worker takes while something goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil  # type: ignore[import-untyped]

from deploy.ephemeral import WorkerProcess
from tests.faults.scenario import Run
from tests.harness.checks import require

_PERIOD = 0.2  # seconds between two samples

# MiB that a view worker may take beside what it took at first. Of each partition it holds a chunk
# at work, one that waits and one that was fetched, and of a chunk its documents.
_MOST_GROWTH = 100


class Memory:
    """Resident memory of a process, in MiB, sampled all the while; `watching_memory` makes it."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._samples = [self._now()]

    def check(self, run: Run) -> None:
        """Note what it was before, at most, and is now.

        Raises:
            Failed: it grew as if it held what waits to be done.
        """
        before, highest, after = self._samples[0], max(self._samples), self._samples[-1]
        run.result.figures |= {
            "view worker's memory before MiB": before,
            "view worker's memory highest MiB": highest,
            "view worker's memory after MiB": after,
        }
        require(
            highest - before <= _MOST_GROWTH,
            f"the view worker's memory grew from {before} to {highest} MiB",
        )

    async def keep_sampling(self) -> None:
        """Until the process ends."""
        with suppress(psutil.NoSuchProcess):
            while True:
                self._samples.append(self._now())
                await asyncio.sleep(_PERIOD)

    def _now(self) -> int:
        return int(self._process.memory_info().rss >> 20)


@asynccontextmanager
async def watching_memory(worker: WorkerProcess) -> AsyncIterator[Memory]:
    """Sample a worker's memory from now on, until the block ends."""
    memory = Memory(psutil.Process(worker.pid))
    sampling = asyncio.create_task(memory.keep_sampling(), name="sample memory")
    try:
        yield memory
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
