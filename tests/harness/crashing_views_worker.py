"""The production view worker with crash points; see `tests.harness.crash_points`."""

from agents.user_views_worker import app
from tests.harness.crash_points import arm

__all__ = ["app"]

arm()
