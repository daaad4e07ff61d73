"""All scenarios, by their names."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.faults.scenario import Scenario
from deploy.faults.scenarios.crash_points import F9
from deploy.faults.scenarios.kills import F1
from deploy.faults.scenarios.zombies import F3

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in (F1, F3, F9)}
