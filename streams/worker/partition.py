"""A partition, as its driver sees it, and what the driver asks of the consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from faust.types import TP

from models.errors import Fatal
from streams.kafka.records import Record


class PartitionStatus(NamedTuple):
    """How far a partition is, for who watches whether it gets on."""

    position: int | None = None
    """None while it is not started."""
    failures: int = 0
    """Since the last chunk that was processed."""
    is_waiting: bool = False
    """Whether it does what may take long, and says so."""


class Partition(Protocol):
    """What a worker does with one input partition."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a server as long as it takes, and has said so."""

    async def start(self) -> int:
        """Take the partition over, restore what it needs, and return the position to read from.

        Called again after any failure; it starts from nothing then.
        """

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Process records in order and make their effect durable together with ``position``.

        Raises:
            Fenced: the partition belongs to somebody else now.
            Fatal: the worker has to stop.
            Exception: anything else; the partition starts again and the records come again.
        """

    async def close(self) -> None:
        """Give the partition up; what is not durable is thrown away."""


class PartitionConsumer(Protocol):
    """What the drivers need of the app."""

    async def read_from(self, tp: TP, position: int) -> None:
        """Deliver this partition's chunks from ``position`` on."""

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """The first position that the broker still has, and the one after the last."""

    def pause(self, tp: TP) -> None:
        """Deliver no more chunks of this partition."""

    def resume(self, tp: TP) -> None:
        """Deliver chunks of this partition again."""

    async def rejoin(self) -> None:
        """Ask the consumer group for a new assignment."""

    def fail(self, error: Fatal) -> None:
        """Stop the worker with this one line."""
