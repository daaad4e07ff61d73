"""Repeats queries that fail while servers are away, and measures how long that takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
        begin, has_failed = time.monotonic(), False
        while True:
            try:
                result = await ask()
            except Transient:
                self.failures += 1
                has_failed = True
                await asyncio.sleep(_PAUSE_S)
            else:
                if has_failed:
                    self.longest = max(self.longest, time.monotonic() - begin)
                return result
