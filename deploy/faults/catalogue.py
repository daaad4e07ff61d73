"""All scenarios, by their names."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.faults.scenario import Scenario
from deploy.faults.scenarios.brokers import F5
from deploy.faults.scenarios.crash_points import F9
from deploy.faults.scenarios.erasures import V3
from deploy.faults.scenarios.forgetting import F8
from deploy.faults.scenarios.kills import F1
from deploy.faults.scenarios.local_stores import F12
from deploy.faults.scenarios.poison import F10
from deploy.faults.scenarios.races import F4
from deploy.faults.scenarios.reading_writes import V1
from deploy.faults.scenarios.rebuilding import V2
from deploy.faults.scenarios.replay import F7
from deploy.faults.scenarios.scaling import F2
from deploy.faults.scenarios.slow_views import F11
from deploy.faults.scenarios.view_outages import F6
from deploy.faults.scenarios.zombies import F3

_ALL = (F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, V1, V2, V3)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
