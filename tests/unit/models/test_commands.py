import json
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from models.commands import (
    USER_COMMANDS,
    DeactivateUser,
    RegisterUser,
    UpdateUserProfile,
)
from models.errors import Poison, Rejected
from models.messages import (
    Command,
    Source,
    check_expected_version,
    command_id_at,
    parse_command,
    to_wire,
)
from tests.unit.samples import COMMAND_ID, NOON, commands, register, wire_register


def parse(data: object) -> Command:
    return parse_command(data, USER_COMMANDS)


def refused(data: object) -> Poison:
    with pytest.raises(Poison) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    return caught.value


def without(name: str) -> dict[str, Any]:
    data = wire_register()
    del data[name]
    return data


def test_reads_a_command_as_the_specification_spells_it() -> None:
    command = parse(wire_register())
    assert command == register(id=COMMAND_ID, timestamp=NOON)


def test_reads_snake_case_too() -> None:
    data = wire_register(aggregate_id="user-1", first_name="Anna", last_name="Müller")
    for name in ("aggregateId", "firstName", "lastName"):
        del data[name]
    assert parse(data) == parse(wire_register())


@pytest.mark.parametrize("other", ["Anna", "Berta"])
def test_refuses_a_field_in_both_spellings(other: str) -> None:
    error = refused(wire_register(first_name=other))
    assert (error.code, str(error)) == (
        "invalid-field",
        "first_name: is given in both spellings",
    )


def test_refuses_a_field_that_it_does_not_know() -> None:
    error = refused(wire_register(frist_name="Anna"))
    assert (error.code, str(error)) == (
        "invalid-field",
        "frist_name: is not a field of RegisterUser",
    )


def test_shows_no_name_of_a_field_that_may_be_a_value() -> None:
    error = refused(wire_register(**{"anna@example.org": True}))
    assert str(error) == "(a name not shown here): is not a field of RegisterUser"


def test_understands_the_type_names_of_the_specification() -> None:
    assert parse(wire_register(type="RegisterUserCommand")) == parse(wire_register())


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        ([], "not-an-object", "the value must be a JSON object"),
        (None, "not-an-object", "the value must be a JSON object"),
        ("RegisterUser", "not-an-object", "the value must be a JSON object"),
        ({}, "missing-field", "type: is missing"),
        ({"type": 1}, "invalid-field", "type: must be a string"),
        ({"type": "Promote"}, "unknown-type", "No handler registered for command: Promote"),
        ({"type": "Command"}, "unknown-type", "No handler registered for command: Command"),
        (
            {"type": "anna@example.org"},
            "unknown-type",
            "No handler registered for command: (a name not shown here)",
        ),
        (without("aggregateId"), "missing-field", "aggregateId: is missing"),
        (without("email"), "missing-field", "email: is missing"),
        (wire_register(email=None), "missing-field", "email: is missing"),
        (wire_register(schemaVersion=2), "unknown-version", "schemaVersion: must be 1"),
        (wire_register(schemaVersion="1"), "unknown-version", "schemaVersion: must be 1"),
        (wire_register(id="7"), "invalid-field", "id: must be a UUID"),
        (wire_register(id=7), "invalid-field", "id: must be a UUID"),
        (wire_register(firstName=7), "invalid-field", "firstName: must be a string"),
        (wire_register(firstName=" \t "), "invalid-field", "firstName: must not be empty"),
        (
            wire_register(firstName="An\x00na"),
            "invalid-field",
            "firstName: must not contain control characters",
        ),
        (
            wire_register(firstName="An\ud800na"),
            "invalid-field",
            "firstName: must be valid Unicode",
        ),
        (
            wire_register(email="anna"),
            "invalid-field",
            "email: must be an email address, as name@example.org",
        ),
        (
            wire_register(lastName="", registrationSource=None),
            "invalid-field",
            "lastName: must not be empty; registrationSource: is missing",
        ),
    ],
)
def test_the_reason_names_what_is_wrong(data: object, code: str, reason: str) -> None:
    error = refused(data)
    assert (error.code, str(error)) == (code, reason)


def test_the_reason_is_bounded() -> None:
    error = refused(wire_register(a=1, b=2, c=3, d=4, e=5, f=6, g=7))
    assert str(error).endswith("e: is not a field of RegisterUser; and 2 more")


@pytest.mark.parametrize(
    "name", ["id", "timestamp", "schemaVersion", "expectedVersion", "correlationId"]
)
def test_null_counts_as_absent(name: str) -> None:
    data = wire_register()
    data.pop(name, None)
    given, null = parse(data), parse({**data, name: None})
    fresh = {"id", "timestamp"}
    assert given.model_dump(exclude=fresh) == null.model_dump(exclude=fresh)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-23T12:00:00Z", NOON),
        ("2026-11-23T12:00:00.5Z", NOON + timedelta(milliseconds=500)),
        ("2026-11-23T12:00:00.123456Z", NOON + timedelta(microseconds=123456)),
        ("2026-11-23T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2026-11-23T13:00:00+01:00", NOON),
        ("2026-11-23T01:30:00-10:30", NOON),
    ],
)
def test_a_time_of_any_zone_becomes_utc(text: str, time: datetime) -> None:
    command = parse(wire_register(timestamp=text))
    assert command.timestamp == time
    assert command.timestamp.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-23T12:00:00",
        "2026-11-23",
        "23.11.2026 12:00",
        "1763899200",
        1763899200,
        1763899200.5,
        True,
        "",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
    ],
)
def test_refuses_other_times(time: object) -> None:
    error = refused(wire_register(timestamp=time))
    assert error.code == "invalid-field"
    assert str(error) == "timestamp: must be an ISO 8601 time with a zone, as 2026-11-23T10:00:00Z"


@pytest.mark.parametrize("name", ["aggregateId", "correlationId", "causationId"])
@pytest.mark.parametrize("value", ["", "x" * 129, " x", "x ", "x\n", "a\x00b", "\x85", "\u2003x"])
def test_refuses_keys_out_of_bounds(name: str, value: str) -> None:
    assert refused(wire_register(**{name: value})).code == "invalid-field"


@pytest.mark.parametrize("value", ["x", "x" * 128, "a b", "例" * 128, "a/b:c@d"])
def test_takes_keys_within_bounds(value: str) -> None:
    assert parse(wire_register(aggregateId=value)).aggregate_id == value


@pytest.mark.parametrize("value", [-1, "1", 1.0, True, 2**63, []])
def test_refuses_invalid_expected_versions(value: object) -> None:
    assert refused(wire_register(expectedVersion=value)).code == "invalid-field"


def test_names_lose_the_spaces_around_them_and_have_at_most_200_characters() -> None:
    command = parse(wire_register(firstName="  Anna Maria ", lastName="x" * 200))
    assert isinstance(command, RegisterUser)
    assert (command.first_name, command.last_name) == ("Anna Maria", "x" * 200)
    error = refused(wire_register(lastName="x" * 201))
    assert str(error) == "lastName: must have at most 200 characters"


def test_reasons_never_carry_values() -> None:
    secret = "Schmidt"
    data = {name: f"{secret}\x00" for name in wire_register() if name != "type"}
    data[secret + "!"] = secret
    assert secret not in str(refused({"type": "RegisterUser", **data}))


def test_the_error_of_a_wrong_call_hides_its_input() -> None:
    with pytest.raises(ValidationError) as caught:
        register(email="secret")
    assert "secret" not in str(caught.value)


def test_a_command_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        register().email = "other@example.org"  # type: ignore[misc]


def test_a_python_time_needs_a_zone() -> None:
    with pytest.raises(ValidationError):
        register(timestamp=datetime(2026, 11, 23, 12, 0))


def test_the_wire_has_camel_case_and_nothing_that_is_not_set() -> None:
    command = UpdateUserProfile(
        id=COMMAND_ID,
        aggregate_id="user-1",
        timestamp=NOON,
        first_name="Anna",
        expected_version=0,
    )
    assert to_wire(command) == {
        "type": "UpdateUserProfile",
        "schemaVersion": 1,
        "id": "11111111-1111-4111-8111-111111111111",
        "aggregateId": "user-1",
        "timestamp": "2026-11-23T12:00:00Z",
        "expectedVersion": 0,
        "firstName": "Anna",
    }


@settings(deadline=None)
@given(commands)
def test_a_command_survives_the_wire(command: Command) -> None:
    assert parse(json.loads(json.dumps(to_wire(command)))) == command


@pytest.mark.parametrize(("expected", "version"), [(None, 0), (None, 7), (0, 0), (7, 7)])
def test_an_expected_version_that_fits(expected: int | None, version: int) -> None:
    command = DeactivateUser(aggregate_id="user-1", expected_version=expected)
    check_expected_version(command, version)


def test_an_expected_version_that_does_not_fit_names_both() -> None:
    command = DeactivateUser(aggregate_id="user-1", expected_version=3)
    with pytest.raises(Rejected) as caught:
        check_expected_version(command, 5)
    assert caught.value.code == "version-mismatch"
    assert str(caught.value) == "Expected version 3, but the version is 5"


def test_the_id_of_a_command_without_one_depends_only_on_its_offset() -> None:
    here, next_ = Source("users.commands.v1", 1, 2), Source("users.commands.v1", 1, 3)
    # Written out, for it may never change: a redelivery would be decided a second time.
    assert command_id_at(here) == UUID("20fd9d55-740d-5668-94c6-db6665569a10")
    assert command_id_at(here) != command_id_at(next_)
