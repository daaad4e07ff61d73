"""The state of an aggregate at any version and time of its timeline."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from uuid import UUID

from agents.users import USERS
from models.events import UserDeactivated, UserEvent, UserProfileUpdated, UserReactivated
from models.messages import EventRecord, Source
from streams.audit.timeline import Entry, Timeline, state_of
from streams.state.snapshot import NO_SNAPSHOT
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
