"""Workers whose clock is wrong, by the seconds in the environment.

Everything in Python sees the wrong time; and so that aiokafka does, it runs without its extension,
which asks the system itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module

from faust.types import AppT

from deploy.supervisor import ROLES, Role

_VARIABLE = "TEST_CLOCK_AHEAD_S"

APPS: Mapping[Role, str] = {
    "commands": "tests.faults.wrong_clock_commands_worker",
    "views": "tests.faults.wrong_clock_views_worker",
}


def clock_ahead(seconds: float) -> dict[str, str]:
    """Return the environment of a worker whose clock is this far ahead; behind, if negative."""
    return {_VARIABLE: str(seconds), "AIOKAFKA_NO_EXTENSIONS": "1"}


def app_with_wrong_clock(role: Role) -> AppT:
    """Set this process's clock to the wrong time, then import the app of a role."""
    ahead, now = float(os.environ[_VARIABLE]), time.time
    time.time = lambda: now() + ahead
    time.time_ns = lambda: int(time.time() * 1_000_000_000)
    app: AppT = import_module(ROLES[role]).app
    return app
