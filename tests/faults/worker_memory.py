"""Memory of a worker's process during a scenario."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil  # type: ignore[import-untyped]

from deploy.ephemeral import WorkerProcess
from deploy.waiting import Turns
from tests.faults.scenario import Run
from tests.harness.checks import require

_SAMPLE_INTERVAL_S = 0.2

# How much a view worker may grow. For each partition it holds three chunks, the one it projects, a
# waiting one and a fetched one, and the documents of one chunk.
_MAX_GROWTH_MIB = 100


class Memory:
    """Samples of a process's resident memory, in MiB; `watching_memory` takes them."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._samples = [self._now()]

    def check(self, run: Run) -> None:
        """Add first, highest and last memory to the result.

        Raises:
            Failed: it grew as if the worker held everything that waits to be projected.
        """
        before, highest, after = self._samples[0], max(self._samples), self._samples[-1]
        run.result.figures |= {
            "view worker's memory before MiB": before,
            "view worker's memory highest MiB": highest,
            "view worker's memory after MiB": after,
        }
        require(
            highest - before <= _MAX_GROWTH_MIB,
            f"the view worker's memory grew from {before} to {highest} MiB",
        )

    async def keep_sampling(self) -> None:
        """Sample until the process ends."""
        with suppress(psutil.NoSuchProcess):
            async for _ in Turns(_SAMPLE_INTERVAL_S):
                self._samples.append(self._now())

    def _now(self) -> int:
        return int(self._process.memory_info().rss >> 20)


@asynccontextmanager
async def watching_memory(worker: WorkerProcess) -> AsyncIterator[Memory]:
    """Sample a worker's memory during the block."""
    memory = Memory(psutil.Process(worker.pid))
    sampling = asyncio.create_task(memory.keep_sampling(), name="sample memory")
    try:
        yield memory
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
