"""The partitions of a worker, each with its driver, and what a rebalance does to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import groupby
from operator import attrgetter

from faust.types import TP

from models.errors import PartitionFatal
from streams import metrics
from streams.logs import about
from streams.worker.chunks import Chunk
from streams.worker.driver import PartitionDriver
from streams.worker.partition import (
    Partition,
    PartitionConsumer,
    PartitionReport,
    PartitionStatus,
)

logger = logging.getLogger(__name__)


class Partitions:
    """The partitions that are assigned to a worker; Faust's rebalances arrive here."""

    def __init__(
        self,
        consumer: PartitionConsumer,
        settle_timeout: float,
        max_records: int,
    ) -> None:
        """Start without partitions.

        Args:
            consumer: what the drivers need from the app.
            settle_timeout: seconds that a running chunk may take to finish in a rebalance.
            max_records: most records of a joined chunk; while as many wait, the partition pauses.
        """
        self._consumer = consumer
        self._max_records = max_records
        self._new_partition: dict[str, Callable[[TP], Partition]] = {}
        self._settle_timeout = settle_timeout
        self._drivers: dict[TP, PartitionDriver] = {}
        self._closed = False
        self._ends: dict[TP, int] = {}
        self._assigned_at: float | None = None  # until all are started that were assigned then
        self.joined = False
        """Whether the group has assigned partitions to this worker, or none, at least once."""
        self.kafka_answered_at: float | None = None
        """When a broker last answered the consumer, in seconds since the epoch."""

    def handle(self, topic: str, new_partition: Callable[[TP], Partition]) -> None:
        """Register what processes the partitions of a topic."""
        self._new_partition[topic] = new_partition

    def submit(self, chunk: Chunk) -> None:
        """Pass a chunk to its driver; drop it if its partition is not here, or after `settle`."""
        driver = self._drivers.get(chunk.tp)
        if driver is not None and not self._closed:
            driver.submit(chunk)

    async def revoke(self, revoked: Collection[TP]) -> None:
        """Let the running chunks of revoked partitions finish in time, or abandon them."""
        await asyncio.gather(
            *(
                driver.settle(self._settle_timeout)
                for tp, driver in self._drivers.items()
                if tp in revoked
            )
        )

    async def assign(self, assigned: Iterable[TP]) -> None:
        """Start new, lost and parked partitions, close those that are assigned elsewhere now."""
        metrics.REBALANCES.inc()
        before = set(self._drivers) if self.joined else None
        if not self._closed:
            began = time.monotonic()
            await self._take_over(set(assigned))
            if set(self._drivers) != before:
                self._assigned_at = began
        self.joined = True
        self._log_ready()

    def _log_ready(self) -> None:
        """Log that the worker is ready, once all partitions that it got are started or parked."""
        statuses = self.statuses().values()
        if self._assigned_at is None or any(
            one.position is None and one.parked is None for one in statuses
        ):
            return
        seconds = time.monotonic() - self._assigned_at
        self._assigned_at = None
        started = sorted(tp for tp, one in self.statuses().items() if one.position is not None)
        if not self._drivers:
            logger.info(
                "ready as a standby: other workers have all partitions", extra=about("worker-ready")
            )
        elif started:
            held = [self._drivers[tp].restored for tp in started]
            restored = sum(one for one in held if one is not None)
            logger.info(
                "ready after %.1f s: %s%s",
                seconds,
                _ranges(started),
                "" if None in held else f", {restored:,} states restored",
                extra=about("worker-ready", partitions=len(started), seconds=round(seconds, 3)),
            )

    async def _take_over(self, assigned: set[TP]) -> None:
        gone = [self._drivers.pop(tp) for tp in set(self._drivers) - assigned]
        await asyncio.gather(*(driver.close() for driver in gone))
        for tp in assigned:
            if self._closed:
                return  # `settle` was called meanwhile
            if tp not in self._drivers:
                self._drivers[tp] = PartitionDriver(
                    tp,
                    self._new_partition[tp.topic](tp),
                    self._consumer,
                    self._max_records,
                    self._on_parked,
                    self._log_ready,
                )
            if self._drivers[tp].lost:
                self._drivers[tp].start(assigned=True)

    def _on_parked(self, error: PartitionFatal) -> None:
        """Stop the worker if none of its partitions can continue."""
        if all(driver.status.parked is not None for driver in self._drivers.values()):
            self._consumer.fail(error)
        self._log_ready()

    async def restart(self, tps: Iterable[TP]) -> None:
        """Abandon what these partitions do and start them again, if still assigned here."""
        for tp in tps:
            driver = self._drivers.get(tp)
            if driver is not None:
                await driver.abandon()
                if self._drivers.get(tp) is driver and driver.lost:  # else it moved meanwhile
                    driver.start()

    async def settle(self, timeout: float) -> None:
        """Take over no more partitions; running chunks have ``timeout`` seconds to finish."""
        self._closed = True
        await asyncio.gather(*(driver.settle(timeout) for driver in self._drivers.values()))

    async def close(self) -> None:
        """Give all partitions up, after `settle`."""
        await self._take_over(set())

    def is_ready(self, tp: TP) -> bool:
        """Whether this partition is assigned here and ready for chunks."""
        return tp in self._drivers and self._drivers[tp].ready

    def status(self, tp: TP) -> PartitionStatus:
        """Return how far a partition is; callable from any thread."""
        driver = self._drivers.get(tp)
        return PartitionStatus() if driver is None else driver.status

    def statuses(self) -> dict[TP, PartitionStatus]:
        """Return how far each assigned partition is."""
        return {tp: driver.status for tp, driver in self._drivers.items()}

    @property
    def topics(self) -> Collection[str]:
        """The input topics."""
        return self._new_partition.keys()

    def reports(self) -> dict[TP, PartitionReport]:
        """Return what is known of each assigned partition."""
        return {tp: driver.report(self._ends.get(tp)) for tp, driver in self._drivers.items()}

    def note_ends(self, ends: Mapping[TP, int]) -> None:
        """Note the last stable offsets that a broker has told; callable from any thread."""
        self._ends.update(ends)
        self.kafka_answered_at = time.time()

    def positions(self) -> dict[TP, int]:
        """Return the next offset to read, of each partition that is started."""
        return {
            tp: driver.position
            for tp, driver in self._drivers.items()
            if driver.position is not None
        }


def _ranges(partitions: Iterable[TP]) -> str:
    """Return sorted partitions in short: `users.commands.v1[0-3,7]`."""
    shown = []
    for topic, group in groupby(partitions, key=attrgetter("topic")):
        ranges: list[list[int]] = []
        for tp in group:
            if ranges and tp.partition == ranges[-1][-1] + 1:
                ranges[-1][1:] = [tp.partition]
            else:
                ranges.append([tp.partition])
        shown.append(f"{topic}[{','.join('-'.join(map(str, one)) for one in ranges)}]")
    return ", ".join(shown)
