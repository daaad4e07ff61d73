"""Every metric of this project: its name, unit, labels and meaning.

Those of workers are in `WORKER`, which a worker serves as `GET /metrics`. Those of clients are in
the registry of the program that uses `agents.client`, if it serves that (prometheus-client's
default).

Counters count what this process knows to be durable, once per chunk. A chunk whose commit is in
doubt is not counted; `cqrs verify` counts from the topics. No label has a value that comes from a
message: no id, no address, no unknown type.
"""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

WORKER = CollectorRegistry()
"""Registry of what a worker counts; `streams/worker/gauges.py` adds what its partitions know."""

ProcessCollector(registry=WORKER)  # process_cpu_seconds_total and the like


class Definition(NamedTuple):
    """A metric as its readers see it."""

    name: str
    """With the suffix of its kind: `_total` for a counter."""
    kind: str
    """`counter`, `gauge` or `histogram`."""
    labels: tuple[str, ...]
    meaning: str


_defined: list[Definition] = []


def definitions() -> tuple[Definition, ...]:
    """Return the definitions of all metrics, in the order of this module."""
    return tuple(_defined)


def _define(kind: str, name: str, meaning: str, labels: tuple[str, ...]) -> Definition:
    _defined.append(Definition(name, kind, labels, meaning))
    return _defined[-1]


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    _define("counter", name, meaning, labels)
    return Counter(name, meaning, labels, registry=WORKER)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    _define("gauge", name, meaning, labels)
    return Gauge(name, meaning, labels, registry=WORKER)


def _histogram(
    name: str,
    meaning: str,
    *labels: str,
    buckets: tuple[float, ...],
    registry: CollectorRegistry = WORKER,
) -> Histogram:
    _define("histogram", name, meaning, labels)
    return Histogram(name, meaning, labels, buckets=buckets, registry=registry)


def _read_gauge(name: str, meaning: str, *labels: str) -> Definition:
    """Define a gauge that is read where its value is known, at each scrape."""
    return _define("gauge", name, meaning, labels)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_RECORDS = (1, 4, 16, 64, 256, 1024, 4096, 16384)

# Partitions of a worker, as their drivers know them. `group` is the consumer group.

BUILD_INFO = _read_gauge(
    "cqrs_build_info",
    "Always 1; the version is a label, and `app`, what the workers of a role have in common: the "
    "group of a view's workers is another one when its definition changes.",
    "app",
    "group",
    "version",
)
TOPIC_PARTITIONS = _read_gauge(
    "cqrs_topic_partitions",
    "Partitions of an input topic, which the workers of a group share.",
    "group",
    "topic",
)
ASSIGNED_PARTITIONS = _read_gauge(
    "cqrs_assigned_partitions",
    "Partitions of an input topic that this worker owns; 0 on a standby.",
    "group",
    "topic",
)
_OF_PARTITION = ("group", "topic", "partition")
PARTITION_STATE = _read_gauge(
    "cqrs_partition_state",
    "1 for the state that an owned partition is in, 0 for the others: `starting`, `running`, "
    "`waiting` (for a server), `parked` (it needs a person).",
    *_OF_PARTITION,
    "state",
)
PARTITION_POSITION = _read_gauge(
    "cqrs_partition_position",
    "Offset of the next record to process, of a partition that is started.",
    *_OF_PARTITION,
)
PARTITION_END_OFFSET = _read_gauge(
    "cqrs_partition_end_offset",
    "Offset after the last record that can be read, as the broker said last.",
    *_OF_PARTITION,
)
PARTITION_LAG_RECORDS = _read_gauge(
    "cqrs_partition_lag_records",
    "Offsets from the position to the end; transaction markers have offsets, too.",
    *_OF_PARTITION,
)
PARTITION_LAG_SECONDS = _read_gauge(
    "cqrs_partition_lag_seconds",
    "Age of the next record to process, among those that were fetched; 0 if there is none.",
    *_OF_PARTITION,
)
PARTITION_LAST_PROGRESS = _read_gauge(
    "cqrs_partition_last_progress_timestamp_seconds",
    "When the last chunk of a partition was processed, or the partition was assigned.",
    *_OF_PARTITION,
)
KAFKA_ANSWERED = _read_gauge(
    "cqrs_kafka_answered_timestamp_seconds",
    "When a broker last answered this worker's consumer.",
    "group",
)
PARTITION_FAILURES = _counter(
    "cqrs_partition_failures_total",
    "Failures of a partition after which it started again.",
    "topic",
    "partition",
)
PARTITION_START_SECONDS = _histogram(
    "cqrs_partition_start_seconds",
    "Time in which a partition was taken over: fenced, and its state restored.",
    "topic",
    buckets=_LONG_SECONDS,
)
REBALANCES = _counter("cqrs_rebalances_total", "Assignments by the consumer group.")

# Deciding

COMMANDS = _counter(
    "cqrs_commands_total",
    "Commands with an outcome: `accepted`, `rejected`, `duplicate`, `dead-lettered`; `parked`, "
    "which get one of these later; `unparked` control records. The type is `other` for what could "
    "not be read.",
    "type",
    "outcome",
)
REJECTIONS = _counter("cqrs_rejections_total", "Rejected commands, by code.", "code")
EVENTS = _counter("cqrs_events_total", "Events written, by type.", "type")
DEAD_LETTERS = _counter(
    "cqrs_dead_letters_total",
    "Dead letters written; the stage is `commands`, or the name of a view.",
    "stage",
    "code",
)
CHUNK_COMMANDS = _histogram(
    "cqrs_chunk_commands", "Commands in a transaction.", buckets=tuple(map(float, _RECORDS))
)
CHUNK_SECONDS = _histogram(
    "cqrs_chunk_seconds",
    "Time of a chunk of commands in each step: `decide`, `commit`, `apply`.",
    "step",
    buckets=_SECONDS,
)
CHUNK_AGE_SECONDS = _histogram(
    "cqrs_chunk_age_seconds",
    "Age of the oldest command of a chunk when the chunk was committed.",
    buckets=(*_SECONDS, 60.0, 300.0),
)
TRANSACTIONS = _counter(
    "cqrs_transactions_total",
    "Kafka transactions: `committed`, `failed`, `fenced` (a newer owner), `timed-out`.",
    "result",
)
STATE_AGGREGATES = _gauge(
    "cqrs_state_aggregates",
    "Aggregates in the state of an owned partition; of a local store, RocksDB's estimate.",
    "topic",
    "partition",
)
PARKED_AGGREGATES = _gauge(
    "cqrs_parked_aggregates",
    "Aggregates of an owned partition with parked commands.",
    "topic",
    "partition",
)
PARKED_COMMANDS = _gauge(
    "cqrs_parked_commands",
    "Parked commands of an owned partition.",
    "topic",
    "partition",
)
PARKED_OLDEST = _gauge(
    "cqrs_parked_oldest_timestamp_seconds",
    "When the oldest parked command of an owned partition was sent; absent if there is none.",
    "topic",
    "partition",
)
STORES_DISCARDED = _counter(
    "cqrs_state_stores_discarded_total",
    "Local stores that could not be used and were removed; the log says why.",
)

# Projecting

VIEW_EVENTS = _counter(
    "cqrs_view_events_total",
    "Events projected into an index: `written`, `skipped` (it has them already, or no document is "
    "made of them), `refused` (dead letters).",
    "index",
    "result",
)
VIEW_CHUNK_SECONDS = _histogram(
    "cqrs_view_chunk_seconds",
    "Time in which a chunk of events was projected into an index, until its checkpoint was saved.",
    "index",
    buckets=_SECONDS,
)
VIEW_RETRIES = _counter(
    "cqrs_view_retries_total",
    "Requests to Elasticsearch that failed and were repeated.",
    "index",
)
VIEW_INDEX_POSITION = _gauge(
    "cqrs_view_index_position",
    "Next offset of the event topic for each index of the view, by its state: `serving`, "
    "`followed`, `building`; any process may project into it.",
    "index",
    "state",
    "partition",
)

# Clients

DISPATCH_SECONDS = _histogram(
    "cqrs_dispatch_seconds",
    "Time in which a client had the outcome of a command, by outcome; or `timeout`, `failed`, "
    "`invalid` (not sent).",
    "outcome",
    buckets=_SECONDS,
    registry=REGISTRY,
)
TOKEN_WAIT_SECONDS = _histogram(
    "cqrs_token_wait_seconds",
    "Time in which a query with a token had its result: `seen`; or `behind` (not in time), "
    "`failed`.",
    "result",
    buckets=_SECONDS,
    registry=REGISTRY,
)
