"""What `verify` has to know of users."""

from __future__ import annotations

from agents.user_views import USER_VIEWS
from agents.users import USERS
from streams.audit.report import Report
from streams.audit.verify import verify
from streams.progress import Progress, say_nothing
from streams.settings import Settings


async def verify_users(
    settings: Settings,
    *,
    timeout: float = 60,
    progress: Progress = say_nothing,
) -> Report:
    """Check all invariants of users and their view; see `streams.audit.verify.verify`."""
    return await verify(settings, USERS, USER_VIEWS, timeout=timeout, progress=progress)
