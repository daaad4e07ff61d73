"""The way of a command: given these records, in any order, then these hops."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import permutations
from typing import Any
from uuid import UUID

import orjson
import pytest

from models.messages import Source, command_id_at
from models.outcomes import (
    Accepted,
    Duplicate,
    FirstAcceptance,
    FirstParked,
    Outcome,
    Parked,
    Rejection,
)
from models.wire import encode
from streams.aggregate import TopicNames
from streams.audit.trail import Hop, Trail
from streams.kafka.records import Record
from streams.settings import Settings

NAMES = TopicNames.of(Settings(), "users")
ID = UUID(int=7)
EVENT_IDS = (UUID(int=8), UUID(int=9))
SOURCE = Source(NAMES.commands, 1, 20)
NOON_MS = 1_796_040_000_000


def record(topic: str, value: Any, *, offset: int, after_ms: int, key: str = "anna") -> Record:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return Record(topic, 1, offset, NOON_MS + after_ms, key.encode(), data)


def command(id_: str | None = str(ID), offset: int = 20, key: str = "anna") -> Record:
    value = {"type": "RegisterUser", "aggregateId": key} | ({"id": id_} if id_ else {})
    return record(NAMES.commands, value, offset=offset, after_ms=0, key=key)


def decided(outcome: Outcome) -> Record:
    return record(NAMES.outcomes, encode(outcome), offset=30, after_ms=10)


COMMON: dict[str, Any] = {
    "command_id": ID,
    "aggregate_id": "anna",
    "timestamp": datetime.fromtimestamp(NOON_MS / 1000, timezone.utc),
    "source": SOURCE,
    "correlation_id": None,
}
ACCEPTED = decided(Accepted(**COMMON, sequence=2, event_ids=EVENT_IDS, token="t"))


def event(index: int, **changes: Any) -> Record:
    value = {
        "id": str(EVENT_IDS[index]),
        "commandId": str(ID),
        "aggregateId": "anna",
        "type": "UserRegistered",
        "sequence": index + 1,
    }
    return record(NAMES.events, value | changes, offset=40 + index, after_ms=11)


def trail(*records: Record, key: bytes | None = None) -> Trail:
    found = Trail(NAMES, ID, key)
    for one in records:
        found.add(one)
    return found


def names(found: Trail) -> list[str]:
    return [hop.name for hop in found.hops]


@pytest.mark.parametrize("order", [*permutations([command(), ACCEPTED, event(0), event(1)])])
def test_in_whatever_order_they_are_read(order: tuple[Record, ...]) -> None:
    found = trail(*order)
    assert names(found) == ["produced", "decided", "event", "event"]
    assert [hop.sequence for hop in found.hops] == [None, None, 1, 2]
    milliseconds = [hop.at.timestamp() * 1000 - NOON_MS for hop in found.hops]
    assert milliseconds == [0, 10, 11, 11]
    assert found.hops[0].source == SOURCE
    assert found.is_complete


def test_nothing_is_shown_before_what_comes_before_it() -> None:
    assert names(trail()) == []
    assert names(trail(event(0))) == []
    assert names(trail(command(), event(0))) == ["produced"]
    found = trail(command(), ACCEPTED, event(1))
    assert names(found) == ["produced", "decided"]
    assert not found.is_complete
    assert trail(command()).outcome is None


def test_a_command_that_has_expired_is_known_from_its_outcome() -> None:
    found = trail(ACCEPTED)
    assert names(found) == []
    assert found.missing_command == SOURCE
    found.give_up_command()
    assert found.missing_command is None
    assert names(found) == ["produced", "decided"]
    expected = Hop("produced", COMMON["timestamp"], SOURCE, aggregate_id="anna")
    assert found.hops[0] == expected


def test_a_command_that_was_read_or_is_not_decided_is_not_missing() -> None:
    assert trail(command(), ACCEPTED).missing_command is None
    assert trail().missing_command is None
    undecided = trail()
    undecided.give_up_command()
    assert names(undecided) == []


@pytest.mark.parametrize(
    "outcome",
    [
        Rejection(**COMMON, code="user-exists", reason="User already exists"),
        Duplicate(**COMMON, of=FirstAcceptance(sequence=1, event_ids=EVENT_IDS, token="t")),
    ],
)
def test_what_writes_no_events_ends_there(outcome: Outcome) -> None:
    found = trail(command(), decided(outcome))
    assert found.is_complete
    assert found.outcome == outcome


def test_a_command_without_an_id_has_that_of_its_place() -> None:
    found = Trail(NAMES, command_id_at(SOURCE))
    found.add(command(None, offset=19))
    found.add(command(None))
    assert [hop.source for hop in found.hops] == [SOURCE]


def test_the_first_command_with_this_id_counts() -> None:
    """A later one, of another aggregate for instance, has an outcome of its own."""
    elsewhere = COMMON | {"source": Source(NAMES.commands, 1, 25)}
    other = decided(Rejection(**elsewhere, code="user-exists", reason="User already exists"))
    found = trail(command(), command(offset=25), other)
    assert names(found) == ["produced"]
    found.add(ACCEPTED)
    found.add(other)
    found.add(command(offset=25))
    assert found.outcome is not None
    assert found.outcome.status == "accepted"


def test_the_command_is_that_of_the_outcome() -> None:
    found = trail(ACCEPTED, command(offset=25))
    assert found.missing_command == SOURCE


def test_with_a_key_only_its_records_count() -> None:
    assert names(trail(command(key="berta"), key=b"anna")) == []
    assert names(trail(command(), key=b"anna")) == ["produced"]


@pytest.mark.parametrize(
    "foreign",
    [
        record(NAMES.outcomes, f"not JSON {ID}".encode(), offset=1, after_ms=0),
        record(NAMES.events, f"not JSON {ID}".encode(), offset=1, after_ms=0),
        record(NAMES.events, {"x": str(ID)}, offset=1, after_ms=0),
        record(NAMES.outcomes, b"of another", offset=1, after_ms=0),
        Record(NAMES.events, 1, 1, NOON_MS, None, None),
        event(0, id="none"),
        event(0, commandId=str(UUID(int=1)), causationId=str(ID)),
    ],
)
def test_what_is_not_of_this_command_is_passed_over(foreign: Record) -> None:
    found = trail(foreign, command(), ACCEPTED)
    assert names(found) == ["produced", "decided"]


def test_a_command_that_was_parked_is_decided_later() -> None:
    """A repeat meanwhile is another command, with the same id."""
    parked = decided(Parked(**COMMON, code="decide-failed", reason="it failed", behind=0))
    repeat = COMMON | {"source": Source(NAMES.commands, 1, 25)}
    duplicate = decided(Duplicate(**repeat, of=FirstParked(offset=20)))
    trail = Trail(NAMES, ID)
    for one in (parked, duplicate, command()):
        trail.add(one)
    assert [hop.name for hop in trail.hops] == ["produced", "parked"]
    assert (trail.outcome, trail.is_complete) == (None, False)
    late = Accepted(**COMMON, sequence=1, event_ids=EVENT_IDS[:1], token="t", decided_by=30)
    for one in (decided(late), event(0)):
        trail.add(one)
    assert [hop.name for hop in trail.hops] == ["produced", "parked", "decided", "event"]
    assert trail.is_complete
