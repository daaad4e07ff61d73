"""The production command worker with crash points and a defect.

See `tests.harness.crash_points` and `tests.harness.defects`.
"""

from agents.user_commands import app
from tests.harness.crash_points import arm
from tests.harness.defects import break_program

__all__ = ["app"]

arm()
break_program()
