"""How long the stack and the command line take to start."""

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
_HELP = [sys.executable, "-c", "from deploy.cli.main import main; main()", "--help"]


async def our_start(ground: BenchContext) -> Figures:
    """A stack that has run before, and the median of some calls of the command line."""
    return {UP: _up(), HELP: median(_help() for _ in range(ground.size["calls"]))}


def _up() -> float:
    with temporary.home() as home:
        stack = EmbeddedStack(home)
        with stack.borrowed():
            pass
        begin = time.perf_counter()
        with stack.borrowed():
            return time.perf_counter() - begin


def _help() -> float:
    begin = time.perf_counter()
    subprocess.run(_HELP, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


STARTING = Benchmark(
    name="starting",
    about=(
        "Seconds until Kafka and Elasticsearch serve, on a stack that has run before, its jars "
        "checked (`cqrs up` without the start of Python); and until `cqrs --help` has ended, the "
        "median of some calls."
    ),
    sizes={"small": {"calls": 5}, "full": {"calls": 15}},
    contestants=(Contestant("cqrs-streams", "As it is.", our_start),),
    targets=(Target(UP, most=15), Target(HELP, most=0.3)),
)
