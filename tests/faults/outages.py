"""Repeats queries that fail while servers are away, and measures how long that takes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from models.errors import Transient

T = TypeVar("T")

_PAUSE_S = 0.05


class Outages:
    """Counts failed queries; `longest` is the longest time until one was answered, in seconds."""

    def __init__(self) -> None:
        self.failures = 0
        self.longest = 0.0

    async def through(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Repeat a query until it does not fail as `Transient`, and return its result."""
        begin = time.monotonic()
        async for attempt in AsyncRetrying(
            wait=wait_fixed(_PAUSE_S), retry=retry_if_exception_type(Transient)
        ):
            with attempt:
                result = await ask()
        failures = attempt.retry_state.attempt_number - 1
        if failures:
            self.failures += failures
            self.longest = max(self.longest, time.monotonic() - begin)
        return result
