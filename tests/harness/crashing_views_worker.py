"""The view worker that people run, with fault points in it; see `tests.harness.crash_points`."""

from agents.user_views_worker import app
from tests.harness.crash_points import arm

__all__ = ["app"]

arm()
