"""What `verify` has to know of users."""

from __future__ import annotations

from agents.user_views import USER_VIEWS, project
from agents.users import USERS, VIEW_WORKER
from streams.findings import Report
from streams.settings import Settings
from streams.verify import Progress, View, verify

_VIEW = View(USER_VIEWS, project, worker=VIEW_WORKER)


async def verify_users(
    settings: Settings,
    *,
    timeout: float = 60,
    progress: Progress = lambda _what, _done, _total: None,
) -> Report:
    """Check all invariants of users and their view; see `streams.verify.verify`."""
    return await verify(settings, USERS, _VIEW, timeout=timeout, progress=progress)
