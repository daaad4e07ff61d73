"""All benchmarks, by name."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.deciding import DECIDING
from benchmarks.latency import LATENCY
from benchmarks.memory import MEMORY
from benchmarks.projecting import PROJECTING
from benchmarks.rebuilding import REBUILDING
from benchmarks.recovery import RECOVERY
from benchmarks.rig.runner import Benchmark
from benchmarks.scaling import SCALING
from benchmarks.search import SEARCH, SEARCH_MANY
from benchmarks.starting import STARTING

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        DECIDING,
        SCALING,
        PROJECTING,
        REBUILDING,
        SEARCH,
        SEARCH_MANY,
        LATENCY,
        RECOVERY,
        MEMORY,
        STARTING,
    )
}
