"""What is counted of a chunk is what became of its commands, once it is durable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import orjson
import pytest
from prometheus_client import generate_latest

from models.errors import Transient
from streams import metrics
from tests.harness.exposition import Exposition
from tests.unit.commands.deciding import NAMES, Written
from tests.unit.commands.test_partition import (
    command,
    mixed,
    record,
    register,
    without_servers,
    written,
)

__all__ = ["without_servers"]  # a fixture


def counted(name: str, label: str) -> Counter[str]:
    """The values of a metric, by one of its labels."""
    found = Exposition(generate_latest(metrics.WORKER).decode())
    values = Counter[str]()
    for sample in found.samples:
        if sample.name == name:
            values[sample.labels[label]] += int(sample.value)
    return values


def test_every_command_is_counted_with_its_outcome() -> None:
    labels = {
        "cqrs_commands_total": "outcome",
        "cqrs_events_total": "type",
        "cqrs_dead_letters_total": "code",
        "cqrs_rejections_total": "code",
    }
    before = {name: counted(name, label) for name, label in labels.items()}
    records = mixed(seed=3)
    topics = written([records[:70], records[70:71], records[71:]])
    gained = {name: counted(name, label) - before[name] for name, label in labels.items()}
    outcomes = [orjson.loads(one.value or b"") for one in topics[NAMES.outcomes]]
    events = [orjson.loads(one.value or b"") for one in topics[NAMES.events]]

    def codes(status: str) -> Counter[str]:
        return Counter(one["code"] for one in outcomes if one["status"] == status)

    assert gained["cqrs_commands_total"] == Counter(one["status"] for one in outcomes)
    assert gained["cqrs_events_total"] == Counter(one["type"] for one in events)
    assert gained["cqrs_dead_letters_total"] == codes("dead-lettered")
    assert gained["cqrs_rejections_total"] == codes("rejected")
    assert min(map(len, gained.values())) > 0


def test_what_cannot_be_read_has_no_type_of_its_own() -> None:
    before = counted("cqrs_commands_total", "type")
    unknown = record(2, b"u", b'{"type": "Zq7x", "aggregateId": "u"}')
    written([[register(0), command(1, "DeactivateUser"), unknown]])
    gained = counted("cqrs_commands_total", "type") - before
    assert gained == {"RegisterUser": 1, "DeactivateUser": 1, "other": 1}


def test_a_chunk_that_was_not_committed_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> Mapping[str, int]:
        raise Transient("the broker is gone")

    monkeypatch.setattr(Written, "commit", fail)
    before = counted("cqrs_commands_total", "outcome")
    with pytest.raises(Transient):
        written([[register(0)]])
    assert counted("cqrs_commands_total", "outcome") == before
