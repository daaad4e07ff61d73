"""What `cqrs doctor` makes of several facts together: workers, views, watermarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from deploy.doctor.elasticsearch_findings import free_bytes_needed
from deploy.doctor.facts import (
    Backlog,
    NotKnown,
    ViewFacts,
    WorkerGroup,
    WorkerPartition,
    WorkerState,
)
from deploy.top.overview import ParkedCommands
from streams.kafka.topics import topic_specs
from tests.unit.deploy.doctor_facts import (
    COMMANDS,
    NAMES,
    NOW,
    SETTINGS,
    SITUATION,
    VIEWS,
    WELL,
    findings,
    logs,
    worker,
)


def test_parked_commands_of_all_workers_are_one_line() -> None:
    """Also if a worker does not answer; of none that answers, nothing is said."""
    runs = WorkerPartition("users.commands.v1[0]", "running", None)
    workers: Mapping[str, WorkerState | NotKnown] = {
        "a:9100": worker(runs, ParkedCommands(1, 1, 60.0)),
        "a:9101": worker(runs, ParkedCommands(1, 3, 720.0)),
        "a:9102": NotKnown("nobody answers"),
    }
    (found,) = (
        one for one in findings(replace(WELL, workers=workers)) if one.subject == "parked commands"
    )
    assert (found.group, found.status) == ("Progress", "problem")
    assert found.line.startswith("4 commands of 2 users, a failed one and those behind it, the old")
    assert "for 12 min: `cqrs dead list` shows why; start a mended program" in found.line
    silent = replace(WELL, workers={"a:9102": NotKnown("nobody answers")})
    assert not any(one.subject == "parked commands" for one in findings(silent))


def test_of_partitions_that_are_not_there_no_worker_is_missed() -> None:
    """The setting is wrong, and its line says so; starting workers would not help."""
    settings = SETTINGS.model_copy(update={"partitions": 3})
    specs = topic_specs(settings, NAMES)
    found = findings(replace(WELL, settings=settings, specs=specs))
    assert [one.group for one in found if one.status == "problem"] == ["Topics"]


def test_a_view_without_index_and_worker_is_not_in_use_beside_another_one() -> None:
    group = WorkerGroup("registrations", "users-daily", NAMES.events, 0, frozenset())
    empty = replace(SITUATION, view="daily", role="registrations", alias="daily", indices=())
    second = ViewFacts("daily", "registrations", empty, {}, {})
    facts = replace(
        WELL,
        groups=(COMMANDS, VIEWS, group),
        views={**WELL.views, "daily": second},
        logs=logs(backlogs={group.name: {0: Backlog(9, NOW - 40)}}),
    )
    skipped = [one for one in findings(facts) if one.status != "ok"]
    assert [one.status for one in skipped] == ["skipped", "skipped"]
    assert {one.line for one in skipped} == {"this view is not in use"}
    fresh = replace(facts, groups=(COMMANDS, group), views={"daily": second}, logs=WELL.logs)
    assert [one.line for one in findings(fresh) if one.status == "problem"] == [
        "there is no index: a view worker creates it (`cqrs worker registrations`)",
        "no worker: start one with `cqrs worker registrations`",
    ]


@pytest.mark.parametrize(
    ("watermarks", "needed"),
    [
        ({"low": "85%"}, 150.0),
        ({"low": "0.9"}, 100.0),
        ({"low": "85%", "low.max_headroom": "100b"}, 100.0),
        ({"low": "85%", "low.max_headroom": "-1"}, 150.0),
        ({"low": "2kb"}, 2048.0),
        ({}, 0.0),
    ],
)
def test_watermarks(watermarks: Mapping[str, str], needed: float) -> None:
    assert free_bytes_needed(watermarks, "low", 1000) == pytest.approx(needed)
