"""The view worker with a wrong clock; see `tests.faults.wrong_clock`."""

from tests.faults.wrong_clock import app_with_wrong_clock

app = app_with_wrong_clock("views")
