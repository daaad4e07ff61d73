"""Concurrent coroutines: one run that many callers share, and several runs as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# The longest rest after a run that took long: that it did may have been chance.
_MAX_REST_S = 0.25


class Coalesced(Generic[T]):
    """An action whose runs are shared by concurrent callers (request coalescing).

    Each caller gets a run that began after its call. However many callers wait, at most one run is
    active and one is due after it. There is no background task: one of the callers runs the action
    for all, and if that one is cancelled or fails, the next one does.
    """

    def __init__(
        self, action: Callable[[], Awaitable[T]], *, min_interval: float, rests: bool = False
    ) -> None:
        """Share an action.

        Args:
            action: The action.
            min_interval: Least number of seconds from the beginning of one run to the next one.
            rests: Whether a rest follows each run that is as long as the run was. So a server that
                is slow, because it has much to do, gets half of the time for its other work.
        """
        self._action = action
        self._min_interval = min_interval
        self._rests = rests
        self._lock = asyncio.Lock()
        self._begun = 0
        self._done = 0
        self._due = 0.0
        self._result: T

    async def __call__(self) -> T:
        """Return the result of a run that begins after this call, or raise its error."""
        wanted = self._begun + 1
        async with self._lock:
            if self._done < wanted:
                await asyncio.sleep(self._due - time.monotonic())
                began = time.monotonic()
                self._due = began + self._min_interval
                self._begun += 1
                self._result = await self._action()
                self._done = self._begun
                if self._rests:
                    ended = time.monotonic()
                    self._due = max(self._due, ended + min(ended - began, _MAX_REST_S))
            return self._result


def retrieve(future: asyncio.Future[Any]) -> None:
    """Take the exception of a future that has ended; else asyncio logs that nobody did.

    A done-callback for futures of which the first failure alone is awaited.
    """
    if not future.cancelled():
        future.exception()


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended; what they raise is not raised here."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def gather_or_cancel(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Run these concurrently and return their results in order; the first error cancels the rest.

    Much like `asyncio.TaskGroup`, which Python 3.10 does not have.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(*tasks)
