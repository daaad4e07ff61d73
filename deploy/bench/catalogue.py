"""All benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.bench.benchmark import Benchmark
from deploy.bench.deciding import DECIDING
from deploy.bench.latency import LATENCY
from deploy.bench.memory import MEMORY
from deploy.bench.projecting import PROJECTING
from deploy.bench.rebuilding import REBUILDING
from deploy.bench.recovery import RECOVERY
from deploy.bench.scaling import SCALING
from deploy.bench.search import SEARCH
from deploy.bench.starting import STARTING

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        DECIDING,
        SCALING,
        PROJECTING,
        REBUILDING,
        SEARCH,
        LATENCY,
        RECOVERY,
        MEMORY,
        STARTING,
    )
}
