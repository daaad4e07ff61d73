"""How long the servers and the command line take to start."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.embedded import temporary_homes as temporary
from deploy.embedded.stack import EmbeddedStack

UP = "cqrs up, s"
HELP = "cqrs --help, s"
_HELP_COMMAND = [sys.executable, "-c", "from deploy.cli.main import main; main()", "--help"]


async def our_start(context: BenchContext) -> Figures:
    """Measure the start of a stack, and `cqrs --help` (median of several calls)."""
    return {UP: _measure_up(), HELP: median(_measure_help() for _ in range(context.size["calls"]))}


def _measure_up() -> float:
    """Return the seconds that a stack takes to start if it has run before."""
    with temporary.home() as home:
        stack = EmbeddedStack(home)
        with stack.borrowed():
            pass
        begin = time.perf_counter()
        with stack.borrowed():
            return time.perf_counter() - begin


def _measure_help() -> float:
    """Return the seconds that `cqrs --help` takes."""
    begin = time.perf_counter()
    subprocess.run(_HELP_COMMAND, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


STARTING = Benchmark(
    name="starting",
    about=(
        "How long the servers and the command line take to start. Seconds until Kafka and "
        "Elasticsearch are ready, on a stack that has run before, jars verified (`cqrs up` without "
        "the start of Python; with the AOT caches of `./run test`, if it has run here); and "
        "until `cqrs --help` has ended, the median of several calls."
    ),
    sizes={"small": {"calls": 5}, "full": {"calls": 15}},
    contestants=(Contestant("cqrs-streams", "Our embedded stack and command line.", our_start),),
    targets=(Target(UP, most=15), Target(HELP, most=0.3)),
)
