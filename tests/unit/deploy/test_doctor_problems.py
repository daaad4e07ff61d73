"""Given these facts, `cqrs doctor` says that. Every problem that it knows is here once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deploy.cli.doctor import exit_code
from deploy.cli.exit_codes import ExitCode
from deploy.doctor.diagnosis import GROUPS
from deploy.doctor.facts import Backlog, OpenTransaction
from tests.unit.deploy.doctor_facts import (
    BROKERS,
    COMMANDS,
    NAMES,
    NOW,
    VIEWS,
    WELL,
    findings,
    logs,
    topics,
)
from tests.unit.deploy.doctor_problems_of_kafka import KAFKA_PROBLEMS
from tests.unit.deploy.doctor_problems_of_views import VIEW_PROBLEMS


def test_all_is_well() -> None:
    found = findings(WELL)
    assert [one for one in found if one.status != "ok"] == []
    assert exit_code(found) == ExitCode.OK
    assert {one.group for one in found} == set(GROUPS)


PROBLEMS = KAFKA_PROBLEMS + VIEW_PROBLEMS


@pytest.mark.parametrize(
    ("given", "group", "line"), [one[1:] for one in PROBLEMS], ids=[one[0] for one in PROBLEMS]
)
def test_a_problem(given: dict[str, Any], group: str, line: str) -> None:
    found = findings(replace(WELL, **given))
    [problem] = [one for one in found if one.status == "problem"]
    assert problem.group == group
    assert problem.line.startswith(line)
    assert "\n" not in problem.line
    assert exit_code(found) == ExitCode.NO


NO_PROBLEMS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "a retention that an operator has changed",
        {"topics": topics(NAMES.outcomes, {"retention.ms": "172800000"})},
        "Topics",
        "kept for 2 days, LogAppendTime; retention.ms=172800000 (created with 604800000)",
    ),
    (
        "a group that shares out its partitions",
        {"groups": (COMMANDS, replace(VIEWS, owned=frozenset(), is_rebalancing=True))},
        "Workers",
        "2 workers, the group shares its partitions out",
    ),
    (
        "a transaction at work",
        {"logs": logs(open_transactions=[OpenTransaction(NAMES.events, 1, 7, NOW - 3)])},
        "Progress",
        "none holds readers back",
    ),
    (
        "a backlog that is new",
        {"logs": logs(backlogs={COMMANDS.name: {1: Backlog(9, NOW - 4)}})},
        "Progress",
        "9 records to process, the oldest 4 s old",
    ),
    (
        "a backlog of transaction markers",
        {"logs": logs(backlogs={COMMANDS.name: {1: Backlog(1, None)}})},
        "Progress",
        "everything is processed",
    ),
    (
        "the right master key",
        {"master_key": True},
        "Settings",
        "it is that of the existing keys",
    ),
    (
        "brokers of Kafka 3",
        {"brokers": replace(BROKERS, versions={1: (0, 13), 3: (0, 12)})},
        "Kafka",
        "2.8 or newer",
    ),
]


@pytest.mark.parametrize(
    ("given", "group", "line"),
    [one[1:] for one in NO_PROBLEMS],
    ids=[one[0] for one in NO_PROBLEMS],
)
def test_no_problem(given: dict[str, Any], group: str, line: str) -> None:
    found = findings(replace(WELL, **given))
    assert [one for one in found if one.status != "ok"] == []
    assert any(one.group == group and line in one.line for one in found)
