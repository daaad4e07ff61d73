"""The view worker of the fault suite, without the protection that the environment names."""

from tests.faults.protections import take_away
from tests.harness.crashing_views_worker import app

__all__ = ["app"]

take_away()
