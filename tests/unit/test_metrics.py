"""Every metric is defined once, documented, and named as Prometheus wants it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from streams import metrics
from streams.metrics import Definition, definitions


@pytest.mark.parametrize("definition", definitions(), ids=lambda one: str(one.name))
def test_names_are_as_prometheus_wants_them(definition: Definition) -> None:
    assert re.fullmatch(r"cqrs_[a-z_]+", definition.name)
    assert definition.name.endswith("_total") == (definition.kind == "counter")
    assert definition.meaning.endswith((".", ".)"))
    assert "le" not in definition.labels


def test_no_name_is_defined_twice() -> None:
    names = [one.name for one in definitions()]
    assert len(names) == len(set(names))


def test_no_label_is_made_for_ids_or_addresses() -> None:
    """What may be a label is decided here: each has few values, and none is of a message."""
    labels = {label for one in definitions() for label in one.labels}
    assert labels == {
        *("app", "group", "version", "topic", "partition", "state"),
        *("type", "outcome", "code", "stage", "step", "result", "index"),
    }


def test_what_is_registered_is_defined() -> None:
    """And nothing else: another module would hide a metric from the docs."""
    names = {one.name.removesuffix("_total") for one in definitions()}
    registered = {
        family.name
        for registry in (metrics.WORKER, REGISTRY)
        for family in registry.collect()
        if family.name.startswith("cqrs_")
    }
    assert registered <= names


def test_the_table_in_the_docs_is_what_is_defined() -> None:
    rows = [
        f"| `{one.name}` | {one.kind} | {' '.join(f'`{label}`' for label in one.labels)} "
        f"| {one.meaning} |".replace("|  |", "| |")
        for one in definitions()
    ]
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| `cqrs_")] == rows
