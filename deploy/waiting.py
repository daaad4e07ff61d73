"""Waiting for what workers and servers bring about: with a deadline, never for a fixed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from models.errors import Fatal

_POLL = 0.05


class NotInTime(Fatal):
    """What had to happen did not happen in time."""


async def wait_until(condition: Callable[[], Any], *, timeout: float = 30, what: str = "") -> Any:
    """Wait until `condition`, which may be async, gives something true, and return that.

    Raises:
        NotInTime: it did not within `timeout` seconds; `what` says what was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {timeout:g} s: {what or inspect.getsource(condition)}")
        await asyncio.sleep(_POLL)
