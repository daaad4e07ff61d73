"""The gauges of a worker's partitions, read from their drivers at each scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streams import metrics
from streams.worker.partition import PartitionReport, PartitionState
from streams.worker.partitions import Partitions

_Values = Mapping[tuple[str, ...], float]


class PartitionGauges(Collector):
    """Collects what the partitions of one worker know."""

    def __init__(self, partitions: Partitions, app_id: str, group: str, count: int) -> None:
        """Collect from ``partitions`` of the consumer group; their topics have ``count`` each."""
        self._partitions = partitions
        self._app_id = app_id
        self._group = group
        self._count = count

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield each gauge with its present values."""
        group = self._group
        reports: dict[tuple[str, ...], PartitionReport] = {
            (group, tp.topic, str(tp.partition)): report
            for tp, report in self._partitions.reports().items()
        }
        owned = [topic for _, topic, _ in reports]
        topics = self._partitions.topics
        yield _gauge(metrics.BUILD_INFO, {(self._app_id, group, _version()): 1})
        yield _gauge(metrics.TOPIC_PARTITIONS, {(group, one): self._count for one in topics})
        yield _gauge(
            metrics.ASSIGNED_PARTITIONS, {(group, one): owned.count(one) for one in topics}
        )
        answered_at = self._partitions.kafka_answered_at
        if answered_at is not None:
            yield _gauge(metrics.KAFKA_ANSWERED, {(group,): answered_at})
        yield from _gauges_of(reports)


@cache
def _version() -> str:
    try:
        return version("cqrs-streams")
    except PackageNotFoundError:  # a checkout
        return "not installed"


def _gauges_of(reports: Mapping[tuple[str, ...], PartitionReport]) -> Iterable[GaugeMetricFamily]:
    yield _gauge(
        metrics.PARTITION_STATE,
        {
            (*labels, state): float(report.state == state)
            for labels, report in reports.items()
            for state in get_args(PartitionState)
        },
    )
    now = time.time()
    values_of: Mapping[metrics.Definition, Callable[[PartitionReport], float | None]] = {
        metrics.PARTITION_POSITION: lambda report: report.status.position,
        metrics.PARTITION_END_OFFSET: lambda report: report.end,
        metrics.PARTITION_LAG_RECORDS: lambda report: report.lag_records,
        metrics.PARTITION_LAG_SECONDS: lambda report: report.lag_seconds(now),
        metrics.PARTITION_LAST_PROGRESS: lambda report: report.progressed_at,
    }
    for definition, value_of in values_of.items():
        values = {labels: value_of(report) for labels, report in reports.items()}
        yield _gauge(
            definition, {labels: value for labels, value in values.items() if value is not None}
        )


def _gauge(definition: metrics.Definition, values: _Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(definition.name, definition.meaning, labels=definition.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
