"""Benchmarks: contestants that are run in turn, round after round."""

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
    """What every contestant is given; `kept` is closed after the last round."""

    stack: EmbeddedStack
    folder: Path  # for logs and the like; gone after the last round
    size: Size
    seed: int
    kept: AsyncExitStack = field(default_factory=AsyncExitStack)
    _opened: dict[Any, Any] = field(default_factory=dict)

    async def once(self, opening: Callable[[BenchContext], AbstractAsyncContextManager[T]]) -> T:
        """What takes long to make and is the same in all rounds; it is kept until the last."""
        if opening not in self._opened:
            self._opened[opening] = await self.kept.enter_async_context(opening(self))
        opened: T = self._opened[opening]
        return opened


@dataclass(frozen=True)
class Contestant:
    """One way to do it.

    Attributes:
        name: Of it, as it is shown.
        does: What it does and does not do, in a sentence or two.
        measure: Does it once and returns the figures, by names that say their units.
    """

    name: str
    does: str
    measure: Callable[[BenchContext], Awaitable[Figures]]


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        name: Of the benchmark, on the command line.
        about: What its figures mean and under which conditions they are taken.
        sizes: How much of everything, by the name of the size.
        contestants: Ours comes first; the others are its peers.
        targets: What it is meant to show.
        needs: The modules of the extra `bench` without which a contestant cannot run.
    """

    name: str
    about: str
    sizes: Mapping[SizeName, Size]
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...] = ()
    needs: tuple[str, ...] = ()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent do not exceed."""
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
    """Run every contestant in every round, each time in another order.

    The first one is run once before that, at the small size, and not counted: servers that have
    just started are slow.

    Raises:
        Fatal: a contestant failed, or did not do what it says.
    """
    size = benchmark.sizes[size_name]
    began = datetime.now(timezone.utc)
    load = os.getloadavg()[0]
    contests = [Contest(one.name, one.does) for one in benchmark.contestants]
    total = 1 + rounds * len(contests)
    with tempfile.TemporaryDirectory(prefix="cqrs-bench-") as folder:
        ground = BenchContext(stack, Path(folder), size, seed)
        progress(f"{benchmark.name}: warming up", 0, total)
        warm_up = BenchContext(stack, Path(folder), benchmark.sizes["small"], seed)
        async with warm_up.kept:
            await benchmark.contestants[0].measure(warm_up)
        done = 1
        async with ground.kept:
            for number in range(rounds):
                for turn in range(len(contests)):
                    which = (turn + number) % len(contests)
                    progress(f"{benchmark.name}: {contests[which].name}", done, total)
                    contests[which].add(await benchmark.contestants[which].measure(ground))
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
