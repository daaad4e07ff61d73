"""What the parts of a worker need from the app they run in; `StreamApp` implements it."""

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
    """Why the worker cannot continue; None while it can."""

    @property
    def should_stop(self) -> bool:
        """Whether the app is stopping (Faust's)."""

    @property
    def rebalancing(self) -> bool:
        """Whether the consumer group is rebalancing (Faust's)."""

    @property
    def consumer_generation_id(self) -> int:
        """Generation of the consumer group that the app is a member of (Faust's)."""

    async def preflight(self) -> None:
        """Check what the worker needs before it joins its group. Raises Fatal."""

    def fail(self, error: Fatal) -> None:
        """Stop the worker and report this error in one line; callable from any thread."""
