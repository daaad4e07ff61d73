"""What the parts of a worker ask of the app they run in; `StreamApp` is the one implementation."""

from __future__ import annotations

from typing import Protocol

from models.errors import Fatal
from streams.settings import Settings
from streams.worker.partitions import Partitions


class Host(Protocol):
    """The app, as transport, watchdog and process see it."""

    settings: Settings
    partitions: Partitions

    failure: Fatal | None
    """Why the worker cannot go on, once it cannot."""

    @property
    def should_stop(self) -> bool:
        """Whether the app is stopping (Faust's)."""

    @property
    def rebalancing(self) -> bool:
        """Whether the consumer group is rebalancing (Faust's)."""

    @property
    def consumer_generation_id(self) -> int:
        """The generation of the consumer group that the app is a member of (Faust's)."""

    async def preflight(self) -> None:
        """Check what the worker needs before it joins its group. Raises Fatal."""

    def fail(self, error: Fatal) -> None:
        """Stop the worker with this one line; from any thread."""
