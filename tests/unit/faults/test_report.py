"""What `cqrs faults` keeps, leaves out and shows. No server is started here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as Answer

from deploy.cli.main import cqrs
from models.errors import Fatal
from tests.faults.catalogue import SCENARIOS
from tests.faults.report import Results, markdown_of
from tests.faults.scenario import Result
from tests.harness.outputs import misfits

PASSED = Result(
    scenario="F1",
    title="kill -9 of random workers",
    scale="full",
    seed=7,
    ok=True,
    seconds=61.5,
    faults=30,
    commands=100_000,
    events=95_000,
    figures={"recovery p50 s": 5.8, "workers": 1234},
)
FAILED = replace(PASSED, scenario="F10", ok=False, failure="I7 is broken", lost=3)


def asked(path: Path, *arguments: str) -> Answer:
    """What the command answers when all that it is asked for has passed already."""
    wanted = ["faults", "--scenario", "F1", "--scale", "full", "--seed", "7"]
    return CliRunner().invoke(cqrs, [*wanted, "--resume", str(path), *arguments])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file with both results."""
    path = tmp_path / "results.json"
    results = Results(path)
    results.add(FAILED)
    results.add(PASSED)
    return path


def test_results_are_kept_in_the_order_of_the_scenarios(kept: Path) -> None:
    assert Results(kept).all == [PASSED, FAILED]


def test_a_new_result_replaces_the_old_one_of_the_same_run(kept: Path) -> None:
    results = Results(kept)
    results.add(replace(FAILED, ok=True, failure=None))
    assert [one.ok for one in Results(kept).all] == [True, True]


def test_results_that_another_run_has_added_are_kept(tmp_path: Path) -> None:
    one, other = Results(tmp_path / "results.json"), Results(tmp_path / "results.json")
    one.add(PASSED)
    other.add(FAILED)
    assert Results(tmp_path / "results.json").all == [PASSED, FAILED]


@pytest.mark.parametrize(
    ("scenario", "seed", "found"), [("F1", 7, True), ("F1", 8, False), ("F10", 7, False)]
)
def test_only_scenarios_that_have_passed_are_skipped(
    kept: Path, scenario: str, seed: int, found: bool
) -> None:
    assert (Results(kept).passed(scenario, "full", seed) is not None) is found


def test_a_scenario_that_has_passed_is_shown_and_not_run_again(kept: Path) -> None:
    answer = asked(kept)
    assert answer.exit_code == 0
    assert "100,000" in answer.output
    assert "recovery p50 s" in answer.output


def test_json(kept: Path) -> None:
    printed = asked(kept, "--json").output
    assert misfits("faults", "json", printed) == []
    (found,) = json.loads(printed)
    assert (found["scenario"], found["localStore"]) == (PASSED.scenario, False)


def test_the_report_has_all_results_of_the_scale(kept: Path, tmp_path: Path) -> None:
    asked(kept, "--report", str(tmp_path / "report.md"))
    page = (tmp_path / "report.md").read_text()
    assert "| F1 | kill -9 of random workers | yes | 30 | 100,000 | 95,000 | 0 |" in page
    assert "**no**: I7 is broken" in page
    assert "2 scenarios, 60 faults, 200,000 commands" in page
    assert "Lost: 3, doubled: 0, diverged: 0." in page
    assert page == markdown_of([PASSED, FAILED])


@pytest.mark.parametrize("text", ["{", "[1]", '[{"scenario": "F1"}]'])
def test_another_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(Fatal, match="holds no results of `cqrs faults`"):
        Results(path)


def test_help_lists_every_scenario() -> None:
    text = CliRunner().invoke(cqrs, ["faults", "--help"]).output
    assert all(f"{one.name:4}{one.title}" in text for one in SCENARIOS.values())
    assert list(SCENARIOS) == sorted(SCENARIOS, key=lambda name: (name[0], int(name[1:])))
