"""Benchmarks, and how they are run: all contestants in turn, round after round."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import ceil
from pathlib import Path
from typing import Any, Literal, TypeVar

from benchmarks.rig.machine import machine, versions
from benchmarks.rig.result import Contest, Result
from benchmarks.rig.target import Target
from deploy.embedded.stack import EmbeddedStack
from streams.progress import ProgressCallback

SizeName = Literal["small", "full"]
Size = Mapping[str, int]
Figures = Mapping[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class BenchContext:
    """What every contestant gets: servers, a folder, the amount of data, the seed."""

    stack: EmbeddedStack
    folder: Path  # for logs and other files; removed after the last round
    size: Size
    seed: int
    kept: AsyncExitStack = field(default_factory=AsyncExitStack)  # closed after the last round
    _opened: dict[Any, Any] = field(default_factory=dict)

    async def once(self, opening: Callable[[BenchContext], AbstractAsyncContextManager[T]]) -> T:
        """Open something that all rounds share, the first time; keep it open until the last round.

        For what takes long to create and is the same in all rounds. `opening` is also its key.
        """
        if opening not in self._opened:
            self._opened[opening] = await self.kept.enter_async_context(opening(self))
        opened: T = self._opened[opening]
        return opened


@dataclass(frozen=True)
class Contestant:
    """One of the programs that a benchmark compares.

    Attributes:
        name: Its name in tables and plots.
        does: What it does and does not do, in a sentence or two.
        measure: Runs it once and returns figures, by names that contain their units.
    """

    name: str
    does: str
    measure: Callable[[BenchContext], Awaitable[Figures]]


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and with which contestants.

    Attributes:
        name: Its name on the command line.
        about: What its figures mean and how they are measured; begins with one short sentence.
        sizes: Amounts of data, by the name of the size.
        contestants: Ours comes first; the others are its peers, or variants of ours.
        targets: What it should show.
        needs: Modules of the extra `bench` that its contestants need.
    """

    name: str
    about: str
    sizes: Mapping[SizeName, Size]
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...] = ()
    needs: tuple[str, ...] = ()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of the values that `percent` of all values do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]


async def run(
    benchmark: Benchmark,
    stack: EmbeddedStack,
    *,
    rounds: int,
    size_name: SizeName,
    seed: int,
    progress: ProgressCallback,
) -> Result:
    """Run every contestant in every round; each round begins with another one.

    The first contestant runs once before, at the small size, and does not count: servers that have
    just started are slow.

    Raises:
        Fatal: a contestant failed, or did not do what it has to.
    """
    size = benchmark.sizes[size_name]
    began = datetime.now(timezone.utc)
    load = os.getloadavg()[0]
    contests = [Contest(one.name, one.does) for one in benchmark.contestants]
    total = 1 + rounds * len(contests)
    with tempfile.TemporaryDirectory(prefix="cqrs-bench-") as folder:
        context = BenchContext(stack, Path(folder), size, seed)
        progress(f"{benchmark.name}: warming up", 0, total)
        warm_up = BenchContext(stack, Path(folder), benchmark.sizes["small"], seed)
        async with warm_up.kept:
            await benchmark.contestants[0].measure(warm_up)
        done = 1
        async with context.kept:
            for number in range(rounds):
                for turn in range(len(contests)):
                    which = (turn + number) % len(contests)
                    progress(f"{benchmark.name}: {contests[which].name}", done, total)
                    contests[which].add(await benchmark.contestants[which].measure(context))
                    done += 1
    return Result(
        benchmark=benchmark.name,
        about=benchmark.about,
        began=began.isoformat(timespec="seconds"),
        machine=machine(),
        load={"begin": round(load, 2), "end": round(os.getloadavg()[0], 2)},
        versions=versions(),
        seed=seed,
        size_name=size_name,
        size=dict(size),
        rounds=rounds,
        contests=contests,
    )
