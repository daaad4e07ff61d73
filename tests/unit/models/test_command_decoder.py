"""Plain commands are read without pydantic, and are the same."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.command_decoder import CommandDecoder
from models.commands import USER_COMMANDS, RegisterUser
from models.errors import Poison
from models.messages import Command, parse_command
from tests.unit.samples import COMMAND_ID, NOON, wire_register

PLAIN = CommandDecoder(USER_COMMANDS)


class Count(Command):
    """Has a field of a type that is never plain."""

    by: int


def plain(data: object) -> Command | None:
    return PLAIN.read(orjson.dumps(data), lambda: COMMAND_ID, lambda: NOON)


def parsed(data: dict[str, Any]) -> Command | Poison:
    """What pydantic makes of it, with the same id and time where it has none."""
    fresh = {"id": COMMAND_ID, "timestamp": NOON}
    given = {name: value for name, value in data.items() if value is not None}
    try:
        return parse_command({**fresh, **given}, USER_COMMANDS)
    except Poison as poison:
        return poison


texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(
        ["Anna", " Anna", "Anna ", "a\u00a0b", "\u2003x", "\x85", "x" * 128, "x" * 129]
    ),
    st.sampled_from(["y" * 200, "y" * 201, "例" * 128, "anna@example.org", "anna@example", "1"]),
)
times = st.one_of(
    st.datetimes(timezones=st.just(timezone.utc)).map(lambda at: at.isoformat()[:-6] + "Z"),
    st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9][T t][0-2][0-9]:[0-5][0-9](:[0-9]{2}([.,][0-9]{1,9})?)?"
        r"(Z|z|[+-][0-9]{2}:?[0-9]{2}|)",
        fullmatch=True,
    ),
    st.sampled_from(["", "Z", "1763899200Z", "1763899200", "2026-11-23", "now"]),
)
uuids = st.uuids().flatmap(
    lambda id_: st.sampled_from([str(id_), id_.hex, str(id_).upper(), f"{{{id_}}}", id_.urn, "x"])
)
anything = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**64 - 1), st.floats(0, 2), texts, times, uuids
)
names = st.sampled_from(
    [
        *wire_register(),
        *("expectedVersion", "schemaVersion", "correlationId", "causationId"),
        *("first_name", "aggregate_id", "other"),
    ]
)
types = st.sampled_from([*USER_COMMANDS, "RegisterUserCommand", "Fly"])


@settings(deadline=None, max_examples=500)
@given(types, uuids, times, texts, st.dictionaries(names, anything, max_size=3))
def test_canonical_commands_are_decoded_as_pydantic_does(
    type_: str, id_: str, time: str, text: str, changes: dict[str, Any]
) -> None:
    data = wire_register(type=type_, id=id_, timestamp=time, firstName=text)
    if type_ not in ("RegisterUser", "UpdateUserProfile", "RegisterUserCommand"):
        data = {name: data[name] for name in ("type", "id", "aggregateId", "timestamp")}
    data.update(changes)
    found, expected = plain(data), parsed(data)
    if found is not None:
        assert isinstance(expected, Command), expected
        assert (type(found), found, repr(found)) == (type(expected), expected, repr(expected))
        assert found.model_dump() == expected.model_dump()
        assert found.timestamp.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": None, "timestamp": None},
        {"expectedVersion": 3, "schemaVersion": 1, "correlationId": "a b"},
        {"firstName": "例" * 200, "email": "anna.müller@example.org"},
        {"timestamp": "2026-11-23T12:00:00.123456Z"},
    ],
)
def test_usual_commands_are_canonical(changes: dict[str, Any]) -> None:
    data = wire_register(**changes)
    assert plain(data) == parsed(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"firstName": " Anna"},
        {"firstName": "Anna\u00ad"},
        {"first_name": "Anna"},
        {"timestamp": "2026-11-23T12:00:00+01:00"},
        {"timestamp": "2026-11-23T12:00:00.123456789Z"},
        {"type": "RegisterUserCommand"},
        {"email": "anna"},
        {"email": None},
        {"aggregateId": "x" * 129},
        {"schemaVersion": 2},
    ],
)
def test_commands_that_validation_changes_are_not_canonical(changes: dict[str, Any]) -> None:
    assert plain(wire_register(**changes)) is None


@pytest.mark.parametrize("value", [b"", b"null", b"[]", b'"RegisterUser"', b'{"type":"\xff"}'])
def test_invalid_commands_are_not_canonical(value: bytes) -> None:
    assert PLAIN.read(value, lambda: COMMAND_ID, lambda: NOON) is None


def test_missing_ids_and_times_come_from_the_caller() -> None:
    data = wire_register()
    del data["id"], data["timestamp"]
    other, later = UUID(int=7), datetime(2027, 1, 1, tzinfo=timezone.utc)
    command = PLAIN.read(orjson.dumps(data), lambda: other, lambda: later)
    assert isinstance(command, RegisterUser)
    assert (command.id, command.timestamp) == (other, later)


def test_a_command_does_not_change() -> None:
    command = plain(wire_register())
    with pytest.raises(ValueError, match="frozen"):
        command.email = "other@example.org"  # type: ignore[union-attr]


def test_a_command_with_other_fields_is_never_canonical() -> None:
    data = {"type": "Count", "aggregateId": "a", "by": 1}
    counts = CommandDecoder({"Count": Count})
    assert counts.read(orjson.dumps(data), lambda: COMMAND_ID, lambda: NOON) is None
    both = CommandDecoder({"Count": Count, **USER_COMMANDS})
    assert both.read(orjson.dumps(data), lambda: COMMAND_ID, lambda: NOON) is None
    assert both.read(orjson.dumps(wire_register()), lambda: COMMAND_ID, lambda: NOON) is not None
