"""Checks of users: all invariants, and what is left of a user who was erased."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from agents.user_views import USER_VIEWS
from agents.users import USERS
from models.errors import Fatal, Transient
from models.user_view import is_tombstone
from streams.audit.erasure import check_erasure
from streams.audit.erasure_report import ErasureReport
from streams.audit.report import Report
from streams.audit.verify import verify
from streams.elasticsearch.index import REFUSED
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.views.reader import open_view

_POLL_INTERVAL_S = 0.1
_REQUEST_TIMEOUT_S = 10.0


async def verify_users(
    settings: Settings,
    *,
    timeout: float = 60,
    progress: ProgressCallback = no_progress,
) -> Report:
    """Check all invariants of users and their view; see `streams.audit.verify.verify`."""
    return await verify(settings, USERS, USER_VIEWS, timeout=timeout, progress=progress)


async def check_user_erasure(settings: Settings, user_id: str) -> ErasureReport:
    """Find where personal data of a user still is, and until when; see `streams.audit.erasure`."""
    return await check_erasure(settings, USERS, USER_VIEWS.index, user_id)


async def wait_for_tombstone(settings: Settings, user_id: str, *, timeout: float) -> int:
    """Wait until the view's document of a user is the tombstone, and return its version.

    Raises:
        Fatal: it is not after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    async with open_view(settings, USER_VIEWS, timeout=_REQUEST_TIMEOUT_S) as view:
        while True:
            document = None
            with suppress(Transient):
                document = (await view.fetch([user_id])).get(user_id)
            if document is not None and REFUSED not in document and is_tombstone(document):
                return int(document["version"])
            if time.monotonic() > deadline:
                raise Fatal(
                    f"User {user_id} is erased, but the view does not show it after {timeout:g} s: "
                    "is a view worker running (`cqrs worker views`)?"
                )
            await asyncio.sleep(_POLL_INTERVAL_S)
