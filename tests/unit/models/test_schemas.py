import json
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from models.commands import USER_COMMANDS
from models.errors import Poison
from models.events import (
    USER_EVENTS,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
)
from models.messages import Command, parse_command, to_wire
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    FirstAcceptance,
    FirstRejection,
    Outcome,
    Rejection,
)
from models.schemas import command_schemas, event_schemas, one_of, outcome_schemas
from models.wire import encode
from streams.encryption.cipher import KEY_BYTES, PERSONAL, seal_event
from tests.unit.samples import (
    ANNA,
    COMMAND_ID,
    EVENT_ID,
    NOON,
    SOURCE,
    commands,
    record,
    wire_of,
    wire_register,
)

COMMANDS = Draft202012Validator(one_of("commands", command_schemas(USER_COMMANDS)))
EVENTS = Draft202012Validator(one_of("events", event_schemas(USER_EVENTS, PERSONAL)))
OUTCOMES = Draft202012Validator(one_of("outcomes", outcome_schemas()))


@pytest.mark.parametrize("validator", [COMMANDS, EVENTS, OUTCOMES])
def test_the_schemas_are_schemas(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(validator.schema)
    assert "$ref" not in json.dumps(validator.schema), "each one is complete in itself"


@given(commands)
def test_what_a_client_sends_fits(command: Command) -> None:
    COMMANDS.validate(to_wire(command))


def test_a_command_with_the_required_fields_only_fits() -> None:
    wire = wire_register()
    del wire["id"], wire["timestamp"]
    COMMANDS.validate(wire)
    COMMANDS.validate({"type": "EraseUser", "aggregateId": "a", "correlationId": None})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "RegisterUsers"},
        {"aggregateId": ""},
        {"aggregateId": "a\tb"},
        {"aggregateId": " a"},
        {"aggregateId": "a" * 129},
        {"aggregateId": 7},
        {"expectedVersion": -1},
        {"expectedVersion": 1.5},
        {"schemaVersion": 2},
        {"firstName": ""},
        {"firstName": "An\x00na"},
        {"lastName": None},
        {"emial": "anna@example.org"},
    ],
    ids=str,
)
def test_what_a_worker_refuses_does_not_fit(change: dict[str, Any]) -> None:
    wire = wire_register(**change)
    with pytest.raises((Poison, ValidationError)):
        parse_command(wire, USER_COMMANDS)
    assert not COMMANDS.is_valid(wire)


HAPPENED: list[UserEvent] = [
    ANNA,
    UserProfileUpdated(email="new@example.org"),
    UserProfileUpdated(first_name="Ann", last_name="Li"),
    UserDeactivated(),
    UserReactivated(),
    UserErased(),
]


@pytest.mark.parametrize("event", HAPPENED, ids=str)
def test_what_a_worker_writes_fits(event: UserEvent) -> None:
    plain = wire_of(record(event, sequence=2, correlation_id="visit-7"))
    EVENTS.validate(plain)
    sealed = record(event, sequence=2).to_wire()
    seal_event(sealed, event.personal, bytes(KEY_BYTES))
    assert (PERSONAL in sealed) is bool(event.personal)
    EVENTS.validate(json.loads(encode(sealed)))


def test_a_field_of_a_later_version_fits() -> None:
    """Readers have to ignore it."""
    EVENTS.validate(wire_of(record(ANNA)) | {"nickname": "Änni"})


def test_an_event_without_its_data_does_not_fit() -> None:
    wire = wire_of(record(ANNA))
    for name in ("email", "sequence", "source", "type"):
        assert not EVENTS.is_valid({key: value for key, value in wire.items() if key != name})


COMMON: dict[str, Any] = {"command_id": COMMAND_ID, "timestamp": NOON, "source": SOURCE}
YES: dict[str, Any] = {"sequence": 4, "event_ids": (EVENT_ID,), "token": "dG9rZW4"}
NO: dict[str, Any] = {"code": "user-exists", "reason": "User already exists"}


@pytest.mark.parametrize(
    "outcome",
    [
        Accepted(**COMMON, **YES),
        Rejection(**COMMON, **NO, aggregate_id="user-1"),
        DeadLettered(timestamp=NOON, source=SOURCE, **NO),
        Duplicate(**COMMON, of=FirstAcceptance(**YES)),
        Duplicate(**COMMON, of=FirstRejection(**NO)),
    ],
    ids=lambda one: str(one.status),
)
def test_an_outcome_fits(outcome: Outcome) -> None:
    wire = json.loads(encode(outcome))
    OUTCOMES.validate(wire)
    assert not OUTCOMES.is_valid(wire | {"status": "perhaps"})
