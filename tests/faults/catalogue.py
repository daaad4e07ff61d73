"""All scenarios by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults.scenario import Scenario
from tests.faults.scenarios.brokers import F5
from tests.faults.scenarios.clocks import F21
from tests.faults.scenarios.crash_points import F9
from tests.faults.scenarios.cut_brokers import F17
from tests.faults.scenarios.cut_coordinator import F28
from tests.faults.scenarios.cut_nodes import V8
from tests.faults.scenarios.cut_workers import F16
from tests.faults.scenarios.default_broker import F13
from tests.faults.scenarios.defective_programs import F24
from tests.faults.scenarios.erasures import V3
from tests.faults.scenarios.flood_stages import V7
from tests.faults.scenarios.forgetting import F8
from tests.faults.scenarios.full_disks import F20
from tests.faults.scenarios.hostile_records import F22
from tests.faults.scenarios.key_rotation import V4
from tests.faults.scenarios.kills import F1
from tests.faults.scenarios.local_stores import F12
from tests.faults.scenarios.lost_primaries import V5
from tests.faults.scenarios.many_hosts import F27
from tests.faults.scenarios.missing_replicas import F15
from tests.faults.scenarios.more_partitions import F18
from tests.faults.scenarios.poison import F10
from tests.faults.scenarios.races import F4
from tests.faults.scenarios.reading_writes import V1
from tests.faults.scenarios.rebuilding import V2
from tests.faults.scenarios.replay import F7
from tests.faults.scenarios.rolling_restarts import V6
from tests.faults.scenarios.rolling_upgrade import F26
from tests.faults.scenarios.scaling import F2
from tests.faults.scenarios.slow_views import F11
from tests.faults.scenarios.topics_again import F14
from tests.faults.scenarios.upgrades import F23
from tests.faults.scenarios.view_outages import F6
from tests.faults.scenarios.zombies import F3

_ALL = (
    *(F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15, F16, F17, F18),
    *(F20, F21, F22, F23, F24, F26, F27, F28, V1, V2, V3, V4, V5, V6, V7, V8),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}

# Every test run plays these at small scale; the others need `--faults`.
SMOKE = ("F1", "F3", "F9", "F12")

# Those that can be played on secured servers.
SECURED = ("F1", "F5", "V1")
