"""What a release may change of what it writes and reads (`docs/upgrading.md`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.harness.wire import broken, wire

RELEASES = sorted(Path(__file__).with_name("wire").glob("*.json"))


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_what_a_release_wrote_and_read_is_so_still(path: Path) -> None:
    assert list(broken(json.loads(path.read_text()), wire())) == []


def lose_a_type(new: Any) -> None:
    del new["commands"]["DeactivateUser"]


def lose_a_field(new: Any) -> None:
    del new["events"]["UserRegistered"]["properties"]["email"]


def mean_something_else(new: Any) -> None:
    new["outcomes"]["Accepted"]["properties"]["sequence"] = {"type": "string"}


def need_more_of_a_command(new: Any) -> None:
    new["commands"]["RegisterUser"]["required"].append("country")


def need_more_of_an_event(new: Any) -> None:
    new["events"]["UserRegistered"]["required"].append("country")


def leave_out_what_clients_need(new: Any) -> None:
    new["outcomes"]["Accepted"]["required"].remove("token")


def rename_a_topic(new: Any) -> None:
    new["topics"].remove("users.events.v1")


def rename_a_setting(new: Any) -> None:
    new["settings"].remove("CQRS_STATE_DIR")


def change_the_state(new: Any) -> None:
    new["state"] = "1.00000000"


def go_back(new: Any) -> None:
    new["state"] = "0.00000000"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lose_a_type, "commands: DeactivateUser is gone"),
        (lose_a_field, "events: UserRegistered has lost email"),
        (mean_something_else, "outcomes: Accepted means something else by sequence"),
        (need_more_of_a_command, "commands: RegisterUser needs country, which older ones lack"),
        (need_more_of_an_event, "events: UserRegistered needs country, which older ones lack"),
        (leave_out_what_clients_need, "outcomes: Accepted may be without token"),
        (rename_a_topic, "topics: users.events.v1 is gone"),
        (rename_a_setting, "settings: CQRS_STATE_DIR is gone"),
        (change_the_state, "state: 1.00000000 after 1.03ebc0cf: raise `state_version`"),
        (go_back, "state: 0.00000000 after 1.03ebc0cf: raise `state_version`"),
    ],
)
def test_what_it_may_not_change_is_named(change: Callable[[Any], None], line: str) -> None:
    old = json.loads(json.dumps(wire()))
    new = deepcopy(old)
    change(new)
    assert list(broken(old, new)) == [line]


@pytest.mark.parametrize(
    ("name", "stored", "line"),
    [
        ("position", b'{"position":17}', "kept: the position is read as Position(offset=17, "),
        ("position", b'{"offset":17}', "kept: the position cannot be read: "),
        ("token", b"cursor", "kept: the token cannot be read: invalid token"),
        ("bookmark", b"", "kept: nothing reads the bookmark"),
    ],
)
def test_what_is_kept_has_to_be_read_as_it_was_written(name: str, stored: bytes, line: str) -> None:
    old = json.loads(json.dumps(wire()))
    old["kept"][name] = stored.hex()
    [found] = broken(old, wire())
    assert found.startswith(line)


def test_what_it_may_change_is_let_through() -> None:
    old = json.loads(json.dumps(wire()))
    new = deepcopy(old)
    new["commands"]["RegisterUser"]["properties"]["country"] = {"type": "string"}
    new["events"]["UserRegistered"]["properties"]["country"] = {"type": "string", "default": ""}
    new["events"]["UserMoved"] = new["events"]["UserRegistered"]
    new["outcomes"]["Later"] = new["outcomes"]["Parked"]
    new["outcomes"]["Accepted"]["properties"]["sequence"]["description"] = "In other words."
    new["topics"].append("users.archive.v1")
    new["settings"].append("CQRS_ARCHIVE")
    new["state"] = "2.00000000"
    assert list(broken(old, new)) == []
