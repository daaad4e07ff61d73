"""A partition as its driver sees it, and what the driver needs from the app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from faust.types import TP

from models.errors import Fatal
from streams.kafka.records import Record


class PartitionStatus(NamedTuple):
    """Progress of a partition, for the watchdog and the health check."""

    position: int | None = None
    """Next offset to read; None while it is not started."""
    failures: int = 0
    """Number of failures of starts since the last good one, and of chunks since one was processed.
    """
    is_waiting: bool = False
    """Whether it is starting, or waits for a server: both may take any time."""
    parked: str | None = None
    """Why it cannot continue, in one line; None while it can."""


PartitionState = Literal["starting", "running", "waiting", "parked"]


class PartitionReport(NamedTuple):
    """What the worker knows of a partition, for its health and its metrics."""

    status: PartitionStatus
    end: int | None
    """Offset after the last record that can be read, as the broker said last, if it did."""
    next_at: float | None
    """Timestamp of the next record to process, in seconds since the epoch; None: there is none."""
    progressed_at: float
    """When a chunk was last processed, or the partition was assigned, in seconds since the epoch.
    """

    @property
    def state(self) -> PartitionState:
        """State in one word. A start that has failed, and is repeated, waits."""
        if self.status.parked is not None:
            return "parked"
        if self.status.position is None:
            return "waiting" if self.status.failures else "starting"
        return "waiting" if self.status.is_waiting else "running"

    @property
    def lag_records(self) -> int | None:
        """Offsets from the position to the end; None if either is not known."""
        if self.status.position is None or self.end is None:
            return None
        return max(0, self.end - self.status.position)

    def lag_seconds(self, now: float) -> float | None:
        """Return the age of the next record, 0 without one; None while it is not started."""
        if self.status.position is None:
            return None
        return 0.0 if self.next_at is None else max(0.0, now - self.next_at)


class Partition(Protocol):
    """What a worker does with one input partition."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a server without a time limit, and has logged that."""

    @property
    def restored(self) -> int | None:
        """Number of aggregates whose state it holds, roughly; None if it holds none."""

    async def start(self) -> int:
        """Take the partition over, restore what it needs, and return the position to read from.

        Called again after any failure: then it starts from scratch.
        """

    async def check_log(self) -> None:
        """Check that the input topic is still the one that the position refers to.

        Called when a chunk begins before the position, which happens after a rebalance, and when
        the log is another one.

        Raises:
            Fatal: it is another topic of the same name.
            Exception: anything else; the partition starts again.
        """

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Process records in order and make their effect durable together with ``position``.

        Raises:
            Fenced: the partition has a new owner, or the broker aborted the transaction.
            PartitionFatal: the partition cannot continue.
            Fatal: the worker has to stop.
            Exception: anything else; the partition starts again and the records are read again.
        """

    async def close(self) -> None:
        """Give the partition up, and discard what is not durable."""


class PartitionConsumer(Protocol):
    """What the drivers need from the app."""

    async def read_from(self, tp: TP, position: int) -> None:
        """Deliver this partition's chunks from ``position`` on."""

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """Return the first offset on the broker, and the last stable one, where reading ends."""

    def pause(self, tp: TP) -> None:
        """Stop delivering chunks of this partition."""

    def resume(self, tp: TP) -> None:
        """Deliver chunks of this partition again."""

    async def rejoin(self) -> None:
        """Ask the consumer group for a new assignment."""

    async def until_owned(self, tp: TP) -> None:
        """Wait until the group's coordinator confirms that the partition is assigned here.

        Returns at once if it does so now; otherwise it is logged.
        """

    async def refusal(self, error: Exception) -> Fatal | None:
        """Return why Kafka refuses this worker, after this failure; None if it may be an outage."""

    def fail(self, error: Fatal) -> None:
        """Stop the worker and report this error in one line."""
