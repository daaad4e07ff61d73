"""The command worker that people run, with fault points in it; see `deploy.faults.points`."""

from agents.user_commands import app
from deploy.faults.points import arm

__all__ = ["app"]

arm()
