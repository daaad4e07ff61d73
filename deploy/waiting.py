"""Wait for something that workers or servers do: with a deadline, never for a fixed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from models.errors import Fatal

_POLL_INTERVAL_S = 0.05


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
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {timeout:g} s: {what or inspect.getsource(condition)}")
        await asyncio.sleep(_POLL_INTERVAL_S)
