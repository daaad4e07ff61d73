"""All partitions of a worker, each with its driver; Faust's rebalances arrive here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from faust.types import TP

from streams.worker.chunks import Chunk
from streams.worker.driver import PartitionDriver
from streams.worker.partition import Partition, PartitionConsumer, PartitionStatus


class Partitions:
    """All partitions of a worker; Faust's rebalances arrive here."""

    def __init__(
        self,
        worker: PartitionConsumer,
        settle_timeout: float,
        max_records: int,
    ) -> None:
        self._worker = worker
        self._max_records = max_records
        self._new_partition: dict[str, Callable[[TP], Partition]] = {}
        self._settle_timeout = settle_timeout
        self._drivers: dict[TP, PartitionDriver] = {}
        self._closed = False

    def handle(self, topic: str, new_partition: Callable[[TP], Partition]) -> None:
        """Say what to do with the partitions of a topic."""
        self._new_partition[topic] = new_partition

    def submit(self, chunk: Chunk) -> None:
        """Hand a chunk to its partition; chunks of partitions that are not ours are dropped."""
        driver = self._drivers.get(chunk.tp)
        if driver is not None:
            driver.submit(chunk)

    async def revoke(self, revoked: Collection[TP]) -> None:
        """Let the running chunks of revoked partitions finish, or abandon them."""
        await asyncio.gather(
            *(
                driver.settle(self._settle_timeout)
                for tp, driver in self._drivers.items()
                if tp in revoked
            )
        )

    async def assign(self, assigned: Iterable[TP]) -> None:
        """Start what is new, restart what was abandoned, close what went elsewhere."""
        if not self._closed:
            await self._take_over(set(assigned))

    async def _take_over(self, assigned: set[TP]) -> None:
        gone = [self._drivers.pop(tp) for tp in set(self._drivers) - assigned]
        await asyncio.gather(*(driver.close() for driver in gone))
        for tp in assigned:
            if self._closed:
                return  # meanwhile
            if tp not in self._drivers:
                self._drivers[tp] = PartitionDriver(
                    tp, self._new_partition[tp.topic](tp), self._worker, self._max_records
                )
            if self._drivers[tp].lost:
                self._drivers[tp].start()

    async def restart(self, tps: Iterable[TP]) -> None:
        """Let partitions that are still ours begin anew; what they are at is abandoned."""
        for tp in tps:
            driver = self._drivers.get(tp)
            if driver is not None:
                await driver.abandon()
                if self._drivers.get(tp) is driver and driver.lost:  # else it went meanwhile
                    driver.start()

    async def settle(self, timeout: float) -> None:
        """Take nothing over any more; running chunks have ``timeout`` seconds to finish."""
        self._closed = True
        await asyncio.gather(*(driver.settle(timeout) for driver in self._drivers.values()))

    async def close(self) -> None:
        """Give everything up, after `settle`."""
        await self._take_over(set())

    def is_ready(self, tp: TP) -> bool:
        """Whether chunks of this partition are wanted."""
        return tp in self._drivers and self._drivers[tp].ready

    def status(self, tp: TP) -> PartitionStatus:
        """How far a partition is; from any thread."""
        driver = self._drivers.get(tp)
        return PartitionStatus() if driver is None else driver.status

    def statuses(self) -> dict[TP, PartitionStatus]:
        """How far all partitions are that are ours now."""
        return {tp: driver.status for tp, driver in self._drivers.items()}

    def positions(self) -> dict[TP, int]:
        """Where to read on, for the partitions that are ready."""
        return {
            tp: driver.position
            for tp, driver in self._drivers.items()
            if driver.position is not None
        }
