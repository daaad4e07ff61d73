"""The state of an aggregate at any version and time of its timeline."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest

from agents.users import USERS
from models.events import (
    USER_EVENTS,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
)
from models.messages import EventRecord, Source, parse_event
from models.outcomes import parse_outcome
from models.wire import encode
from streams.audit.timeline import Entry, Timeline, entries_of, state_of
from streams.commands import partition as command_partition
from streams.state.snapshot import NO_SNAPSHOT
from tests.unit.commands.deciding import Written
from tests.unit.commands.parked_commands import in_order, register, replay, send, update
from tests.unit.samples import ANNA

NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


def entry(offset: int, minutes: int, event: UserEvent) -> Entry:
    record = EventRecord(
        id=UUID(int=offset),
        aggregate_id="anna",
        sequence=offset + 1,
        timestamp=NOON + timedelta(minutes=minutes),
        command_id=UUID(int=offset),
        correlation_id=None,
        causation_id=None,
        source=Source("users.commands.v1", 0, offset),
        event=event,
    )
    return Entry(offset, None, None, (record,))


TIMELINE = Timeline(
    "anna",
    0,
    (
        entry(0, 0, ANNA),
        entry(1, 10, UserProfileUpdated(first_name="Anja")),
        entry(2, 5, UserDeactivated()),  # a producer whose clock is behind
        entry(3, 20, UserReactivated()),
    ),
    (),
    4,
)


def test_without_a_limit_it_is_the_fold_of_all_events() -> None:
    found = state_of(USERS, TIMELINE)
    assert found.state is not None
    assert (found.version, found.state.first_name, found.state.is_active) == (4, "Anja", True)


def test_at_a_version() -> None:
    found = state_of(USERS, TIMELINE, version=1)
    assert found.state is not None
    assert (found.version, found.state.first_name) == (1, ANNA.first_name)


def test_at_a_time_it_has_all_events_before_the_last_one_of_that_time() -> None:
    found = state_of(USERS, TIMELINE, time=NOON + timedelta(minutes=7))
    assert found.state is not None
    assert (found.version, found.state.first_name, found.state.is_active) == (3, "Anja", False)


def test_before_its_first_event_there_is_none() -> None:
    assert state_of(USERS, TIMELINE, time=NOON - timedelta(minutes=1)) == NO_SNAPSHOT


def test_an_entry_has_the_time_of_what_is_left_of_it() -> None:
    assert TIMELINE.entries[1].time == NOON + timedelta(minutes=10)


def test_a_command_that_was_parked_has_the_events_of_its_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)
    deciding = in_order()
    register(deciding)
    update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    send(deciding, "DeactivateUser")
    deciding.decide()
    deciding.breaks = lambda _: False
    replay(deciding, 1)
    update(deciding, "Cid")
    deciding.breaks = lambda command: getattr(command, "first_name", None) == "Cid"
    deciding.decide()
    decided, happened = defaultdict(list), defaultdict(list)
    for one in deciding.outcomes():
        outcome = parse_outcome(encode(one))
        decided[outcome.source.offset].append(outcome)
    for one in deciding.events():
        event = parse_event(one, USER_EVENTS)
        happened[event.source.offset].append(event)
    entries = entries_of({}, decided, happened)
    said = [
        (one.offset, one.outcome and one.outcome.status, [event.sequence for event in one.events])
        for one in entries
    ]
    assert said == [
        (0, "accepted", [1]),
        (1, "accepted", [2]),
        (2, "accepted", [3]),
        (3, "rejected", []),
        (4, "unparked", []),
        (5, "parked", []),
    ]
