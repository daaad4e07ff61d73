"""What a worker exposes at one time, and how much its counters and histograms have grown since.

Pure: the texts are handed in. A process that was started again counts from 0; what it had counted
before is not taken off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]

_STARTED = "process_start_time_seconds"
_BOUND = "le"


class Samples:
    """The samples of one exposition, by name and labels."""

    def __init__(self, by_name: Mapping[str, Mapping[Labels, float]]) -> None:
        """Wrap samples that were parsed."""
        self._by_name = by_name

    def of(self, name: str) -> Mapping[Labels, float]:
        """Return the samples with this name by their labels."""
        return self._by_name.get(name, {})

    def value(self, name: str) -> float | None:
        """Return the value of a sample that has no labels; None if it is missing."""
        return self.of(name).get(frozenset())


@dataclass(frozen=True)
class Scrape:
    """The answer of one worker."""

    target: str
    """Where it was asked, as host:port."""
    at: float
    """When, in seconds since the epoch."""
    samples: Samples | None
    """None: it did not answer."""
    problem: str = ""
    """Why it did not, in a few words."""


def parse(text: str) -> Samples:
    """Parse Prometheus' text format.

    Raises:
        ValueError: it is none.
    """
    by_name: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            by_name[sample.name][frozenset(sample.labels.items())] = sample.value
    return Samples(by_name)


@dataclass(frozen=True)
class Pair:
    """Two answers of the same worker, one after the other."""

    before: Samples
    after: Samples
    seconds: float
    """Time between them; above 0."""

    def growth(self, name: str) -> Mapping[Labels, float]:
        """Return how much each sample of a counter or histogram has grown."""
        is_same_process = self.before.value(_STARTED) == self.after.value(_STARTED)
        former = self.before.of(name) if is_same_process else {}
        # It can be less only in a process that does not say when it was started.
        return {
            labels: value if value < former.get(labels, 0.0) else value - former.get(labels, 0.0)
            for labels, value in self.after.of(name).items()
        }


def pairs(before: Iterable[Scrape], after: Iterable[Scrape]) -> dict[str, Pair]:
    """Return both answers of each worker that has given two, by its target."""
    former = {scrape.target: scrape for scrape in before}
    found = {}
    for scrape in after:
        earlier = former.get(scrape.target)
        if earlier is None or earlier.samples is None or scrape.samples is None:
            continue
        if scrape.at > earlier.at:
            found[scrape.target] = Pair(earlier.samples, scrape.samples, scrape.at - earlier.at)
    return found


def rates(found: Iterable[Pair], name: str, label: str, **of: str) -> dict[str, float]:
    """Return how much a counter grows per second in all workers together.

    Args:
        found: the answers.
        name: of the counter.
        label: the rates are by the values of this one.
        of: leave out what has not these labels.
    """
    totals: dict[str, float] = defaultdict(float)
    for pair in found:
        for labels, growth in pair.growth(name).items():
            if of.items() <= labels:
                totals[dict(labels)[label]] += growth / pair.seconds
    return dict(totals)


@dataclass(frozen=True)
class Distribution:
    """What was observed in the buckets of a histogram, in all workers together."""

    counts: Mapping[float, float]
    """Upper bound -> observations up to it."""
    per_second: float

    def quantile(self, q: float) -> float | None:
        """Return the value below which this share lies; None without any observation.

        It is interpolated within a bucket, as Prometheus does. What lies beyond the last bound
        counts as that bound.
        """
        bounds = sorted(self.counts)
        total = self.counts[bounds[-1]] if bounds else 0.0
        if not total:
            return None
        rank, low, below = q * total, 0.0, 0.0
        for bound in bounds[:-1]:
            count = self.counts[bound]
            if count >= rank and count > below:
                return low + (bound - low) * (rank - below) / (count - below)
            low, below = bound, count
        return low

    @property
    def last_bound(self) -> float:
        """The largest value that it can tell."""
        return max((bound for bound in self.counts if bound != float("inf")), default=0.0)


def distributions(found: Iterable[Pair], name: str, label: str) -> dict[str, Distribution]:
    """Return what a histogram has observed between the answers, by a label (or by none: "")."""
    counts: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    per_second: dict[str, float] = defaultdict(float)
    for pair in found:
        for labels, growth in pair.growth(f"{name}_bucket").items():
            of = dict(labels)
            bound = float(of[_BOUND])
            counts[of.get(label, "")][bound] += growth
            if bound == float("inf"):
                per_second[of.get(label, "")] += growth / pair.seconds
    return {value: Distribution(dict(one), per_second[value]) for value, one in counts.items()}
