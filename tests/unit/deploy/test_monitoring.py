"""The alert rules and the dashboard: names that exist, and alerts that fire when they should.

`alerts_test.yaml` is a file for promtool; `tests/harness/promql.py` evaluates it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from streams.metrics import Definition, definitions
from tests.harness.promql import History, evaluate

FOLDER = Path(__file__).parents[3] / "deploy" / "monitoring"
PAGE = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
OF_OTHERS = {  # of Prometheus, and of prometheus-client
    *("up", "process_start_time_seconds", "process_cpu_seconds_total"),
    "process_resident_memory_bytes",
}
ADDED_BY_SCRAPING = {"job", "instance"}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return list(group["rules"])


def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "dashboard.json").read_text()))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*shown, *(rule["expr"] for rule in rules())]


@cache
def samples() -> dict[str, Definition]:
    """What Prometheus stores of each metric, by name; a histogram is three."""
    found: dict[str, Definition] = {}
    for one in definitions():
        if one.kind == "histogram":
            buckets = one._replace(labels=(*one.labels, "le"))
            found |= {f"{one.name}_bucket": buckets}
            found |= {f"{one.name}_{part}": one for part in ("count", "sum")}
        else:
            found[one.name] = one
    return found


def parts(expression: promql.Expr) -> Iterator[promql.Expr]:
    """The expression and all that it is made of."""
    yield expression
    match expression:
        case promql.BinaryExpr():
            yield from parts(expression.lhs)
            yield from parts(expression.rhs)
        case promql.AggregateExpr() | promql.ParenExpr():
            yield from parts(expression.expr)
        case promql.MatrixSelector():
            yield expression.vector_selector
        case promql.Call():
            for argument in expression.args:
                yield from parts(argument)


def selectors(text: str) -> list[promql.VectorSelector]:
    return [one for one in parts(promql.parse(text)) if isinstance(one, promql.VectorSelector)]


@pytest.mark.parametrize("text", expressions())
def test_metrics_and_labels_exist(text: str) -> None:
    of_metrics: set[str] = set()
    for one in selectors(text):
        assert one.name in {*samples(), *OF_OTHERS}
        labels = set(samples()[one.name].labels) if one.name in samples() else set()
        of_metrics |= labels
        assert {matcher.name for matcher in one.matchers.matchers} <= labels | ADDED_BY_SCRAPING
    for part in parts(promql.parse(text)):
        if isinstance(part, promql.AggregateExpr) and part.modifier is not None:
            assert set(part.modifier.labels) <= of_metrics | ADDED_BY_SCRAPING


def test_every_metric_is_shown() -> None:
    shown = {one.name for text in expressions() for one in selectors(text)}
    kept = {samples()[name].name for name in shown if name in samples()}
    assert kept == {one.name for one in definitions()}


def test_legends_and_summaries_use_labels_that_the_result_has() -> None:
    known = {label for one in definitions() for label in one.labels} | ADDED_BY_SCRAPING
    texts = [target["legendFormat"] for panel in panels() for target in panel["targets"]]
    texts += [rule["annotations"]["summary"].replace("$labels.", "") for rule in rules()]
    assert {name for text in texts for name in re.findall(r"{{ ?(\w+) ?}}", text)} <= known


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard()["uid"] == "cqrs-streams"
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(places) == len(set(places))


def test_the_page_says_what_to_do_about_each_alert() -> None:
    assert re.findall(r"^\| `(Cqrs\w+)` \|", PAGE, re.MULTILINE) == [
        one["alert"] for one in rules()
    ]


# The histories

SERIES = re.compile(r"(?P<name>\w+)(?:{(?P<labels>.*)})?")


def histories() -> list[dict[str, Any]]:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    return list(tests)


def minutes(text: str) -> int:
    match = re.fullmatch(r"(\d+)m", text)
    assert match is not None
    return int(match[1])


def values_of(notation: str) -> list[float | None]:
    """The values that promtool makes of `1 0x8` (1, then 0 nine times), `0+60x3` and `_x2`."""
    values: list[float | None] = []
    for part in notation.split():
        if missing := re.fullmatch(r"_x(\d+)", part):
            values += [None] * int(missing[1])
            continue
        match = re.fullmatch(r"(?P<first>\d+)(?:\+(?P<step>\d+))?(?:x(?P<more>\d+))?", part)
        assert match is not None, part
        first, step, more = (int(match[name] or 0) for name in ("first", "step", "more"))
        values += [float(first + step * number) for number in range(more + 1)]
    return values


def history_of(test: dict[str, Any]) -> History:
    history = {}
    for series in test["input_series"]:
        match = SERIES.fullmatch(series["series"])
        assert match is not None
        labels = re.findall(r'(\w+)="([^"]*)"', match["labels"] or "")
        samples = [
            (60.0 * number, value)
            for number, value in enumerate(values_of(series["values"]))
            if value is not None
        ]
        history[frozenset([("__name__", match["name"]), *labels])] = samples
    return history


def firing(rule: dict[str, Any], history: History, at_minute: int) -> list[dict[str, Any]]:
    """The alerts of a rule at this minute: their condition has held for its `for`, each minute."""
    expression, patience = promql.parse(rule["expr"]), minutes(rule.get("for", "0m"))
    since: dict[frozenset[tuple[str, str]], int] = {}
    for minute in range(at_minute + 1):
        found = evaluate(expression, history, 60.0 * minute)
        assert not isinstance(found, float)
        results = {frozenset(pair for pair in one if pair[0] != "__name__") for one in found}
        since = {one: since.get(one, minute) for one in results}
    return [
        alert(rule, dict(sorted(result)))
        for result, began in since.items()
        if at_minute - began >= patience
    ]


def alert(rule: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """An alert as promtool expects it."""
    summary = rule["annotations"]["summary"]
    for name, value in labels.items():
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    return {
        "exp_labels": {**labels, **rule["labels"]},
        "exp_annotations": {"summary": summary},
    }


@pytest.mark.parametrize("test", histories(), ids=lambda test: str(test["name"]))
def test_alerts_fire_when_they_should(test: dict[str, Any]) -> None:
    history = history_of(test)
    for expected in test["alert_rule_test"]:
        (rule,) = (one for one in rules() if one["alert"] == expected["alertname"])
        found = sorted(firing(rule, history, minutes(expected["eval_time"])), key=repr)
        due = sorted(expected.get("exp_alerts", []), key=repr)
        assert found == due, (rule["alert"], expected["eval_time"])


def test_each_alert_fires_in_a_history_and_not_in_another() -> None:
    asked = [one for test in histories() for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {one["alertname"] for one in asked if "exp_alerts" in one} == names
    assert {one["alertname"] for one in asked if "exp_alerts" not in one} == names


def test_the_examples_of_prometheus_and_supervisor_agree() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "cqrs"
    assert job["file_sd_configs"][0]["files"] == ["/etc/prometheus/cqrs/*.json"]
    assert "/etc/prometheus/cqrs/commands.json" in PAGE
    assert config["rule_files"] == ["alerts.yaml"]
