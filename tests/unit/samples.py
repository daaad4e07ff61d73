"""Users, commands and events for tests that speak in them, and strategies that make up more."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from models.commands import (
    DeactivateUser,
    EraseUser,
    ReactivateUser,
    RegisterUser,
    UpdateUserProfile,
)
from models.events import UserDeactivated, UserErased, UserEvent, UserRegistered
from models.messages import Command, EventRecord, Source
from models.user import User, evolve
from models.wire import encode

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
COMMAND_ID = UUID("11111111-1111-4111-8111-111111111111")
EVENT_ID = UUID("22222222-2222-4222-8222-222222222222")
SOURCE = Source("users.commands.v1", 3, 12345)

ANNA = UserRegistered("Anna@example.org", "Anna", "Müller", "web")


def wire_of(event: EventRecord[UserEvent]) -> dict[str, Any]:
    """The event as JSON."""
    return dict(json.loads(encode(event.to_wire())))


def register(**fields: Any) -> RegisterUser:
    """A registration of Anna, but for what is said otherwise."""
    anna: dict[str, Any] = {
        "aggregate_id": "user-1",
        "email": ANNA.email,
        "first_name": ANNA.first_name,
        "last_name": ANNA.last_name,
        "registration_source": ANNA.registration_source,
    }
    return RegisterUser(**{**anna, **fields})


def wire_register(**fields: Any) -> dict[str, Any]:
    """Anna's registration as JSON, but for what is said otherwise."""
    return {
        "type": "RegisterUser",
        "id": str(COMMAND_ID),
        "aggregateId": "user-1",
        "timestamp": "2026-11-23T12:00:00Z",
        "email": ANNA.email,
        "firstName": ANNA.first_name,
        "lastName": ANNA.last_name,
        "registrationSource": ANNA.registration_source,
        **fields,
    }


def given(*events: UserEvent) -> User | None:
    """The user after these events, one a second from noon on."""
    user = None
    for second, event in enumerate(events):
        user = evolve(user, event, NOON + timedelta(seconds=second))
    return user


ACTIVE = given(ANNA)
INACTIVE = given(ANNA, UserDeactivated())
ERASED = given(ANNA, UserErased())


def record(event: UserEvent, sequence: int = 1, **fields: Any) -> EventRecord[UserEvent]:
    """An event in an envelope; its time is as in `given`."""
    envelope: dict[str, Any] = {
        "id": EVENT_ID,
        "aggregate_id": "user-1",
        "timestamp": NOON + timedelta(seconds=sequence - 1),
        "command_id": COMMAND_ID,
        "correlation_id": None,
        "causation_id": None,
        "source": SOURCE,
    }
    return EventRecord(event=event, sequence=sequence, **{**envelope, **fields})


times = st.datetimes(
    min_value=datetime(1970, 1, 1),
    max_value=datetime(9999, 12, 31),
    timezones=st.just(timezone.utc),
)
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=200)
keys = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=128)
# Few, so that some commands change nothing, and some that differ only in case.
emails = st.sampled_from(["anna@example.org", "Anna@example.org", "änna+x@bücher.example.com"])
few_names = st.sampled_from(["Anna", "anna", "Zoë", "例", "O'Brien"])


def _made(command: type[Command], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Command]:
    common: dict[str, st.SearchStrategy[Any]] = {
        "aggregate_id": st.just("user-1"),
        "timestamp": times,
        "expected_version": st.none() | st.integers(0, 5),
        "correlation_id": st.none() | keys,
        "causation_id": st.none() | keys,
    }
    # `st.builds` would fill in the aliases as well.
    return st.fixed_dictionaries({**common, **fields}).map(lambda given: command(**given))


commands: st.SearchStrategy[Command] = st.one_of(
    _made(
        RegisterUser,
        email=emails,
        first_name=few_names,
        last_name=names,
        registration_source=names,
    ),
    _made(
        UpdateUserProfile,
        email=st.none() | emails,
        first_name=st.none() | few_names,
        last_name=st.none() | few_names,
    ),
    _made(DeactivateUser),
    _made(ReactivateUser),
    _made(EraseUser),
)
