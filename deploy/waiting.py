"""Wait for something that workers or servers do: with a deadline, never for a fixed time.

What polls, or keeps a rate, waits here as well (`Turns`), and nowhere else.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from typing_extensions import Self

from models.errors import Fatal

_POLL_INTERVAL_S = 0.05


class Turns:
    """Turns of a loop: the first at once, each other one a fixed time after the one before.

    async for _ in Turns(0.1):
        await look()
    """

    def __init__(self, interval: float) -> None:
        """Start with the next turn due; `interval` is in seconds, from the end of a turn."""
        self._interval = interval
        self._is_first = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        """Wait until the next turn is due."""
        if not self._is_first:
            await asyncio.sleep(self._interval)
        self._is_first = False


class NotInTime(Fatal):
    """Something that was waited for did not happen in time."""


async def wait_until(condition: Callable[[], Any], *, timeout: float = 30, what: str = "") -> Any:
    """Wait until `condition` returns something true, and return that.

    Args:
        condition: is called every 50 ms; may be async.
        timeout: seconds.
        what: names in the error what was waited for; by default the source of `condition`.

    Raises:
        NotInTime: the condition was not true within `timeout`.
    """
    deadline = time.monotonic() + timeout
    async for _ in Turns(_POLL_INTERVAL_S):
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            break
    raise NotInTime(f"not within {timeout:g} s: {what or inspect.getsource(condition)}")
