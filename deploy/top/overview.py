"""What all workers together are doing, from two answers of each: what `cqrs top` shows.

Pure. Everything that needs two answers (rates, times) is empty after the first ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploy.top.scrapes import Labels, Pair, Samples, Scrape, distributions, pairs, rates

# What a person looks at first.
_STATES = ("parked", "waiting", "starting", "running")

_POSITION = "cqrs_partition_position"

# What is shown of a histogram, its name, and the label that tells its parts apart.
_TIMES = (
    ("command to commit, oldest of a chunk", "cqrs_chunk_age_seconds", ""),
    ("chunk of commands: {}", "cqrs_chunk_seconds", "step"),
    ("chunk of events into {}", "cqrs_view_chunk_seconds", "index"),
    ("taking over {}", "cqrs_partition_start_seconds", "topic"),
)


@dataclass(frozen=True)
class Worker:
    """A process, and whether it answers."""

    target: str
    group: str | None = None
    """Its consumer group; None if that is not known, as for the next four."""
    version: str | None = None
    partitions: int | None = None
    """Number of partitions that it owns; 0 on a standby."""
    cpu_percent: float | None = None
    """Of one core."""
    memory_bytes: float | None = None
    problem: str | None = None
    """Why nothing is known of it."""


@dataclass(frozen=True)
class Partition:
    """A partition of an input topic, as the worker that owns it sees it."""

    group: str
    topic: str
    partition: int
    worker: str
    state: str
    """`parked`, `waiting`, `starting` or `running`."""
    position: float | None
    """Offset of the next record to process; None while it is not started, as for the lag."""
    end: float | None
    lag_records: float | None
    lag_seconds: float | None
    per_second: float | None
    """Offsets that it has passed per second."""
    quiet_seconds: float | None
    """Time since the last chunk, or since it was assigned."""


@dataclass(frozen=True)
class Unowned:
    """Partitions that none of the workers that answer has."""

    group: str
    topic: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class ParkedCommands:
    """Commands that wait behind one of their aggregate that failed."""

    aggregates: int
    commands: int
    oldest_seconds: float | None
    """How long the oldest of them has waited; None if there is none."""


@dataclass(frozen=True)
class Index:
    """An index of a view."""

    name: str
    state: str
    """`serving`, `followed` or `building`."""
    done: float | None
    """Share of the events that it has, from 0 to 1; None if that is not known."""
    per_second: Mapping[str, float]
    """Events that workers project per second, by result. A rebuild projects by itself."""
    retries_per_second: float | None


@dataclass(frozen=True)
class Latency:
    """How long something took, of what ended between the two answers."""

    what: str
    per_second: float
    p50: float | None
    """In seconds, as the next two; None if nothing ended."""
    p99: float | None
    limit: float
    """The largest value that is told: what took longer counts as that."""


@dataclass(frozen=True)
class Overview:
    """Everything that `cqrs top` shows."""

    at: float
    """When, in seconds since the epoch."""
    seconds: float | None
    """Time between the two answers; None after the first ones."""
    workers: tuple[Worker, ...]
    partitions: tuple[Partition, ...]
    """What needs a person first, then by lag."""
    unowned: tuple[Unowned, ...]
    parked: ParkedCommands
    dead_letters: Mapping[str, int]
    """By stage: those that the workers have written since they were started."""
    commands_per_second: Mapping[str, float]
    """By outcome."""
    events_per_second: float | None
    dead_letters_per_second: Mapping[str, float]
    """By stage: `commands`, or a view."""
    transactions_per_second: Mapping[str, float]
    """By result."""
    indices: tuple[Index, ...]
    latencies: tuple[Latency, ...]

    @property
    def silent(self) -> tuple[Worker, ...]:
        """The workers that do not answer."""
        return tuple(worker for worker in self.workers if worker.problem)


def overview(before: Sequence[Scrape], now: Sequence[Scrape]) -> Overview:
    """Return what is shown of these answers; `before` is empty for the first ones."""
    pair_of = pairs(before, now)
    found = list(pair_of.values())
    answers = [(one, one.samples) for one in now if one.samples is not None]
    events = rates(found, "cqrs_events_total", "type")
    at = max((scrape.at for scrape in now), default=0.0)
    return Overview(
        at=at,
        seconds=max((pair.seconds for pair in found), default=None),
        workers=tuple(_worker(one, pair_of.get(one.target)) for one in now),
        partitions=tuple(
            sorted(
                (
                    partition
                    for one, samples in answers
                    for partition in _partitions(one, samples, pair_of.get(one.target))
                ),
                key=_urgency,
            )
        ),
        unowned=tuple(_unowned([samples for _, samples in answers])),
        parked=parked_commands([samples for _, samples in answers], at),
        dead_letters=_dead_letters([samples for _, samples in answers]),
        commands_per_second=rates(found, "cqrs_commands_total", "outcome"),
        events_per_second=sum(events.values()) if found else None,
        dead_letters_per_second=rates(found, "cqrs_dead_letters_total", "stage"),
        transactions_per_second=rates(found, "cqrs_transactions_total", "result"),
        indices=tuple(_indices(found, [samples for _, samples in answers])),
        latencies=tuple(_latencies(found)),
    )


def parked_commands(answers: Sequence[Samples], now: float) -> ParkedCommands:
    """Return what is parked in the partitions of these workers, with their times until `now`."""

    def total(name: str) -> int:
        return int(sum(value for samples in answers for value in samples.of(name).values()))

    since = [
        value
        for samples in answers
        for value in samples.of("cqrs_parked_oldest_timestamp_seconds").values()
    ]
    return ParkedCommands(
        total("cqrs_parked_aggregates"),
        total("cqrs_parked_commands"),
        max(0.0, now - min(since)) if since else None,
    )


def _dead_letters(answers: Iterable[Samples]) -> Mapping[str, int]:
    found: dict[str, int] = defaultdict(int)
    for samples in answers:
        for labels, value in samples.of("cqrs_dead_letters_total").items():
            found[dict(labels)["stage"]] += int(value)
    return dict(found)


def _worker(scrape: Scrape, pair: Pair | None) -> Worker:
    samples = scrape.samples
    if samples is None:
        return Worker(scrape.target, problem=scrape.problem)
    build = next((dict(labels) for labels in samples.of("cqrs_build_info")), {})
    cpu = None
    if pair is not None:
        cpu = 100 * sum(pair.growth("process_cpu_seconds_total").values()) / pair.seconds
    return Worker(
        scrape.target,
        group=build.get("group"),
        version=build.get("version"),
        partitions=int(sum(samples.of("cqrs_assigned_partitions").values())),
        cpu_percent=cpu,
        memory_bytes=samples.value("process_resident_memory_bytes"),
    )


def _partitions(scrape: Scrape, samples: Samples, pair: Pair | None) -> Iterator[Partition]:
    for labels, is_so in samples.of("cqrs_partition_state").items():
        if is_so:
            yield _partition(scrape, samples, labels, pair)


def _partition(scrape: Scrape, samples: Samples, labels: Labels, pair: Pair | None) -> Partition:
    of = dict(labels)
    place = labels - {("state", of["state"])}
    position = samples.of(_POSITION).get(place)
    before = None if pair is None else pair.before.of(_POSITION).get(place)
    progressed = samples.of("cqrs_partition_last_progress_timestamp_seconds").get(place)
    per_second = None
    if pair is not None and position is not None and before is not None:
        per_second = max(0.0, position - before) / pair.seconds
    return Partition(
        group=of["group"],
        topic=of["topic"],
        partition=int(of["partition"]),
        worker=scrape.target,
        state=of["state"],
        position=position,
        end=samples.of("cqrs_partition_end_offset").get(place),
        lag_records=samples.of("cqrs_partition_lag_records").get(place),
        lag_seconds=samples.of("cqrs_partition_lag_seconds").get(place),
        per_second=per_second,
        quiet_seconds=None if progressed is None else max(0.0, scrape.at - progressed),
    )


def _urgency(one: Partition) -> tuple[int, float, float, str, int]:
    lag = -(one.lag_seconds or 0.0), -(one.lag_records or 0.0)
    return _STATES.index(one.state), *lag, one.topic, one.partition


def _unowned(answers: Iterable[Samples]) -> Iterator[Unowned]:
    counts: dict[tuple[str, str], int] = {}
    owned: dict[tuple[str, str], set[int]] = defaultdict(set)
    for samples in answers:
        for labels, count in samples.of("cqrs_topic_partitions").items():
            of = dict(labels)
            counts[of["group"], of["topic"]] = int(count)
        for labels in samples.of("cqrs_partition_state"):
            of = dict(labels)
            owned[of["group"], of["topic"]].add(int(of["partition"]))
    for (group, topic), count in sorted(counts.items()):
        missing = sorted(set(range(count)) - owned[group, topic])
        if missing:
            yield Unowned(group, topic, tuple(missing))


def _indices(found: Sequence[Pair], answers: Iterable[Samples]) -> Iterator[Index]:
    states: dict[str, str] = {}
    positions: dict[str, dict[str, float]] = defaultdict(dict)
    topics: dict[str, set[str]] = defaultdict(set)
    ends: dict[str, dict[str, float]] = defaultdict(dict)
    for samples in answers:
        for labels, end in samples.of("cqrs_partition_end_offset").items():
            of = dict(labels)
            ends[of["topic"]][of["partition"]] = end
        for labels, position in samples.of("cqrs_view_index_position").items():
            of = dict(labels)
            name, number = of["index"], of["partition"]
            states[name] = of["state"]
            positions[name][number] = max(position, positions[name].get(number, 0.0))
            # Its worker reads the topic that it is made of.
            topics[name].update(dict(one)["topic"] for one in samples.of("cqrs_topic_partitions"))
    for name in sorted(states):
        retries = rates(found, "cqrs_view_retries_total", "index", index=name)
        yield Index(
            name,
            states[name],
            _done(
                positions[name],
                {number: end for topic in topics[name] for number, end in ends[topic].items()},
            ),
            rates(found, "cqrs_view_events_total", "result", index=name),
            sum(retries.values()) if found else None,
        )


def _done(positions: Mapping[str, float], ends: Mapping[str, float]) -> float | None:
    """Return the share of the offsets before the ends; None unless each end is known."""
    if not positions.keys() <= ends.keys():
        return None
    total = sum(ends[number] for number in positions)
    passed = sum(min(position, ends[number]) for number, position in positions.items())
    return passed / total if total else 1.0


def _latencies(found: Sequence[Pair]) -> Iterator[Latency]:
    for what, name, label in _TIMES:
        for value, one in distributions(found, name, label).items():
            yield Latency(
                what.format(value),
                one.per_second,
                one.quantile(0.5),
                one.quantile(0.99),
                one.last_bound,
            )
