"""Versions of a state: what identifies one, and what a program does with those of another."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Optional

import msgspec
import pytest
from faust.types import TP

from agents.users import USERS
from models.errors import Fatal
from streams.state.store import Position, decode_position, encode_position
from streams.state.version import StateVersion, check_version, has_to_rebuild

TP_0 = TP("users.commands.v1", 0)
CURRENT = StateVersion(2, "a1b2c3d4")


class Base(msgspec.Struct):
    name: str
    note: str | None = None


class Other(msgspec.Struct):
    name: str


def fingerprint(kind: Any) -> str:
    return StateVersion.of(replace(USERS, state=kind)).fields


def test_a_version_is_a_number_and_the_fingerprint_of_the_fields() -> None:
    version = StateVersion.of(replace(USERS, state_version=7))
    assert version == StateVersion.read(str(version))
    assert version.number == 7
    assert len(version.fields) == 8


def test_the_fingerprint_of_users_changes_only_together_with_the_number() -> None:
    """If this fails: raise `state_version` in `agents/users.py`, and put the new version here."""
    assert str(StateVersion.of(USERS)) == "1.03ebc0cf"


def struct(*fields: Any) -> Any:
    return msgspec.defstruct("Other", fields)


@pytest.mark.parametrize(
    "other",
    [
        struct(("name", str)),  # removed
        struct(("name", str), ("mail", str), ("note", str | None, None)),  # inserted
        struct(("title", str), ("note", str | None, None)),  # renamed
        struct(("name", bytes), ("note", str | None, None)),  # of another type
        struct(("name", str), ("note", str | None, "")),  # with another default
        struct(("name", str), ("note", datetime | None, None)),
        str,
    ],
)
def test_other_fields_have_another_fingerprint(other: Any) -> None:
    assert fingerprint(other) != fingerprint(Base)


def test_the_same_fields_elsewhere_and_spelled_otherwise_have_the_same_fingerprint() -> None:
    same = struct(("name", str), ("note", Optional[str], None))  # noqa: UP045 - as in older code
    assert fingerprint(same) == fingerprint(Base)


def test_fields_of_nested_types_count() -> None:
    assert fingerprint(list[Base]) != fingerprint(list[Other])


class Node(msgspec.Struct):
    children: "list[Node]"  # noqa: UP037 - the type does not exist yet


def test_a_type_may_contain_itself() -> None:
    assert fingerprint(Node) == fingerprint(Node)


def test_the_version_is_in_the_position() -> None:
    position = Position(42, state=str(CURRENT))
    assert encode_position(position) == b'{"position":42,"state":"2.a1b2c3d4"}'
    assert decode_position(encode_position(position)) == position


def test_an_old_position_has_none() -> None:
    assert decode_position(b'{"position":42}') == Position(42)


def test_a_position_of_a_newer_program_can_be_read() -> None:
    assert decode_position(b'{"position":42,"more":[1]}') == Position(42)


@pytest.mark.parametrize(
    ("stored", "rebuild"),
    [
        ("2.a1b2c3d4", False),
        ("1.a1b2c3d4", True),
        ("1.00000000", True),
        ("1.rebuilding", True),
        ("2.rebuilding", True),  # a rebuild that did not end
        (None, True),  # from before there were versions: number 1
    ],
)
def test_what_is_rebuilt(stored: str | None, rebuild: bool) -> None:
    assert has_to_rebuild(TP_0, Position(9, state=stored), CURRENT) is rebuild


def test_states_without_a_version_are_those_of_number_1() -> None:
    assert has_to_rebuild(TP_0, Position(9), StateVersion(1, "a1b2c3d4")) is False


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        (
            "3.a1b2c3d4",
            r"the state of users\.commands\.v1\[0\] was made by a newer program \(state version "
            r"3, this is 2\): start that one",
        ),
        ("3.rebuilding", r"newer program \(state version 3, this is 2\): start that one"),
        ("2.00000000", r"\(2\.00000000, this is 2\.a1b2c3d4\): raise `state_version`"),
        ("three", r"newer program \(state version 'three' is unknown here\)"),
    ],
)
def test_what_is_refused(stored: str, line: str) -> None:
    with pytest.raises(Fatal, match=line) as refused:
        has_to_rebuild(TP_0, Position(9, state=stored), CURRENT)
    assert "\n" not in str(refused.value)


def test_a_check_does_not_read_states_that_have_to_be_rebuilt() -> None:
    check_version(TP_0, None, CURRENT)
    check_version(TP_0, Position(9, state=str(CURRENT)), CURRENT)
    with pytest.raises(Fatal, match=r"`cqrs state rebuild 0`"):
        check_version(TP_0, Position(9, state="1.a1b2c3d4"), CURRENT)
