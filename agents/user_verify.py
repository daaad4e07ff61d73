"""What `verify` has to know of users."""

from __future__ import annotations

from agents.user_views import USER_VIEWS
from agents.users import USERS
from streams.findings import Report
from streams.progress import Progress, say_nothing
from streams.settings import Settings
from streams.verify import verify


async def verify_users(
    settings: Settings,
    *,
    timeout: float = 60,
    progress: Progress = say_nothing,
) -> Report:
    """Check all invariants of users and their view; see `streams.verify.verify`."""
    return await verify(settings, USERS, USER_VIEWS, timeout=timeout, progress=progress)
