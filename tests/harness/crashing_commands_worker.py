"""The production command worker with crash points; see `tests.harness.crash_points`."""

from agents.user_commands import app
from tests.harness.crash_points import arm

__all__ = ["app"]

arm()
