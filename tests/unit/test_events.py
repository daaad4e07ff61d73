from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Poison
from models.events import (
    USER_EVENTS,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.messages import Source, event_id, parse_event
from tests.unit.samples import ANNA, COMMAND_ID, keys, record, times, wire_of

texts = st.text(st.characters(codec="utf-8"), max_size=20)
events: st.SearchStrategy[UserEvent] = st.one_of(
    st.builds(UserRegistered, texts, texts, texts, texts),
    st.builds(UserProfileUpdated, st.none() | texts, st.none() | texts, st.none() | texts),
    st.builds(UserDeactivated),
    st.builds(UserReactivated),
    st.builds(UserErased),
)


def wire_event(**fields: Any) -> dict[str, Any]:
    return {**wire_of(record(ANNA)), **fields}


def test_an_event_on_the_wire_is_flat() -> None:
    assert wire_of(record(ANNA, correlation_id="visit-7", causation_id="click-1")) == {
        "type": "UserRegistered",
        "schemaVersion": 1,
        "id": "22222222-2222-4222-8222-222222222222",
        "aggregateId": "user-1",
        "sequence": 1,
        "timestamp": "2026-11-23T12:00:00Z",
        "commandId": "11111111-1111-4111-8111-111111111111",
        "correlationId": "visit-7",
        "causationId": "click-1",
        "source": {"topic": "users.commands.v1", "partition": 3, "offset": 12345},
        "email": "Anna@example.org",
        "firstName": "Anna",
        "lastName": "Müller",
        "registrationSource": "web",
    }


def test_an_update_carries_only_what_changed() -> None:
    data = wire_of(record(UserProfileUpdated(last_name="Meier")))
    assert data["lastName"] == "Meier"
    assert not {"email", "firstName", "correlationId", "causationId"} & set(data)


@settings(deadline=None)
@given(
    event=events,
    sequence=st.integers(1, 10**6),
    fields=st.fixed_dictionaries(
        {
            "id": st.uuids(),
            "aggregate_id": keys,
            "timestamp": times,
            "command_id": st.uuids(),
            "correlation_id": st.none() | keys,
            "causation_id": st.none() | keys,
            "source": st.builds(Source, keys, st.integers(0, 999), st.integers(0, 2**63)),
        }
    ),
)
def test_an_event_survives_the_wire(
    event: UserEvent, sequence: int, fields: dict[str, Any]
) -> None:
    sent = record(event, sequence, **fields)
    assert parse_event(wire_of(sent), USER_EVENTS) == sent
    assert sent.type in USER_EVENTS


def test_a_field_that_came_later_is_passed_over() -> None:
    assert parse_event(wire_event(mood="good"), USER_EVENTS) == record(ANNA)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ([], "not-an-object"),
        ({}, "missing-field"),
        (wire_event(type=5), "invalid-field"),
        (wire_event(type="UserPromoted"), "unknown-type"),
        (wire_event(schemaVersion=2), "unknown-version"),
        (wire_event(schemaVersion=None), "missing-field"),
        (wire_event(schemaVersion="1"), "invalid-field"),
        (wire_event(id="x"), "invalid-field"),
        (wire_event(id=5), "invalid-field"),
        (wire_event(aggregateId=None), "missing-field"),
        (wire_event(sequence=0), "invalid-field"),
        (wire_event(sequence=True), "invalid-field"),
        (wire_event(timestamp="2026-11-23T12:00:00"), "invalid-field"),
        (wire_event(timestamp="2026-11-23T12:00:00+01:00Z"), "invalid-field"),
        (wire_event(timestamp="yesterdayZ"), "invalid-field"),
        (wire_event(timestamp=5), "invalid-field"),
        (wire_event(timestamp=None), "missing-field"),
        (wire_event(commandId=None), "missing-field"),
        (wire_event(source=None), "missing-field"),
        (wire_event(source="here"), "invalid-field"),
        (wire_event(source={"topic": "t", "partition": -1, "offset": 0}), "invalid-field"),
        (wire_event(email=None), "missing-field"),
        (wire_event(email=5), "invalid-field"),
        (wire_event(type="UserProfileUpdated", email=5), "invalid-field"),
    ],
)
def test_refuses_what_we_do_not_write(data: object, code: str) -> None:
    with pytest.raises(Poison) as caught:
        parse_event(data, USER_EVENTS)
    assert caught.value.code == code


def test_event_ids_follow_from_the_command_alone() -> None:
    # Written out, for they may never change: deciding again has to give the same ids.
    assert event_id(COMMAND_ID, 0) == UUID("c09c0359-59c7-5f10-8f5b-86a795c831fe")
    assert event_id(COMMAND_ID, 1) != event_id(COMMAND_ID, 0)


@given(st.uuids(), st.integers(0, 99))
def test_event_ids_are_uuids_of_version_5(command_id: UUID, index: int) -> None:
    assert event_id(command_id, index) == uuid5(command_id, str(index))
