"""The command worker that people run, with fault points in it; see `tests.harness.crash_points`."""

from agents.user_commands import app
from tests.harness.crash_points import arm

__all__ = ["app"]

arm()
