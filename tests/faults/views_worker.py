"""The worker of the fault scenarios, without the protection that the environment names."""

from deploy.faults.views_worker import app
from tests.faults.protections import take_away

__all__ = ["app"]

take_away()
