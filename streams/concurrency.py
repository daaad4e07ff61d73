"""Coroutines that run at the same time: one for all who wait, or several as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Coalesced(Generic[T]):
    """An action that many wait for, each for a run that begins after they asked.

    At most one run is under way and one is due behind it, however many wait, and nothing runs when
    nobody does. Nothing is kept going in the background: one of those who wait runs it for all, and
    if that one gives up or fails, the next one does.
    """

    def __init__(self, action: Callable[[], Awaitable[T]], *, min_interval: float) -> None:
        """`apart`: seconds between the beginnings of two runs, at least."""
        self._action = action
        self._apart = min_interval
        self._lock = asyncio.Lock()
        self._begun = 0
        self._done = 0
        self._due = 0.0
        self._result: T

    async def __call__(self) -> T:
        """What a run gives that begins from now on. Raises what it raises."""
        wanted = self._begun + 1
        async with self._lock:
            if self._done < wanted:
                await asyncio.sleep(self._due - time.monotonic())
                self._due = time.monotonic() + self._apart
                self._begun += 1
                self._result = await self._action()
                self._done = self._begun
            return self._result


async def gather_or_cancel(*work: Coroutine[Any, Any, T]) -> list[T]:
    """What all of this gives, done side by side; the first error ends the rest."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
