"""What becomes of commands behind one that this program cannot decide."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import SecretStr

from models.errors import PartitionFatal
from models.messages import Command
from streams.commands import parking
from streams.commands import partition as command_partition
from streams.commands.control import (
    SIGNATURE,
    Control,
    DropParked,
    ReplayParked,
    control_key,
    encode_control,
)
from streams.encryption.cipher import is_sealed_state
from streams.encryption.keys import new_master_key
from streams.kafka.dead_letters import CODE, DECIDED_BY, SEALED, SOURCE_OFFSET
from streams.state import failure_window, parked
from streams.state.parked import PARKED_PREFIX
from tests.unit.commands.deciding import NAMES, Deciding, Written
from tests.unit.samples import wire_register

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(autouse=True)
def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)


@pytest.fixture
def deciding() -> Deciding:
    """A worker that parks, and whose program is defective."""
    return in_order()


def in_order(**changes: Any) -> Deciding:
    settings = {"dead_letter_order": "aggregate", "control_key": SecretStr(KEY), **changes}
    deciding = Deciding(**settings)
    deciding.breaks = updates
    return deciding


def updates(command: Command) -> bool:
    return type(command).__name__ == "UpdateUserProfile"


def register(deciding: Deciding, user: str = "u") -> int:
    return deciding.send(user.encode(), wire_register(aggregateId=user, id=str(uuid4())))


def send(deciding: Deciding, type_: str, user: str = "u", **fields: Any) -> int:
    wire = {"type": type_, "aggregateId": user, "id": str(uuid4()), **fields}
    return deciding.send(user.encode(), wire)


def update(deciding: Deciding, name: str, user: str = "u", **fields: Any) -> int:
    return send(deciding, "UpdateUserProfile", user, firstName=name, **fields)


def control(deciding: Deciding, which: Control) -> int:
    key = control_key(deciding.settings)
    assert key is not None
    signed = encode_control(which, NAMES.commands, key)
    assert signed.key is not None
    return deciding.send(signed.key, signed.value or b"", *signed.headers)


def replay(deciding: Deciding, first: int, user: str = "u") -> int:
    return control(deciding, ReplayParked(id=uuid4(), aggregate_id=user, first=first))


def drop(deciding: Deciding, first: int, through: int, user: str = "u") -> int:
    return control(
        deciding, DropParked(id=uuid4(), aggregate_id=user, first=first, through=through)
    )


def test_what_comes_behind_a_failed_command_waits_and_is_decided_in_order(
    deciding: Deciding,
) -> None:
    register(deciding)
    register(deciding, "v")
    failing = update(deciding, "Bea")
    for name in ("DeactivateUser", "ReactivateUser"):
        send(deciding, name)
    send(deciding, "DeactivateUser", "v")
    deciding.decide()
    assert deciding.statuses() == [
        (0, "accepted"),
        (1, "accepted"),
        (2, "parked"),
        (3, "parked"),
        (4, "parked"),
        (5, "accepted"),
    ]
    assert [one["behind"] for one in deciding.outcomes()[2:5]] == [0, 1, 2]
    assert {one["code"] for one in deciding.outcomes()[2:5]} == {"decide-failed"}

    deciding.breaks = lambda _: False
    control_ = replay(deciding, failing)
    last = send(deciding, "DeactivateUser")
    deciding.decide()
    assert deciding.statuses()[6:] == [
        (2, "accepted"),
        (3, "accepted"),
        (4, "accepted"),
        (control_, "unparked"),
        (last, "accepted"),
    ]
    assert deciding.parked() == {}
    ended, left = deciding.outcomes()[6:9], deciding.outcomes()[9]
    assert [one["decidedBy"] for one in ended] == [control_] * 3
    assert (left["ended"], left["left"]) == (3, 0)
    events = [one for one in deciding.events() if one["aggregateId"] == "u"]
    assert [one["sequence"] for one in events] == [1, 2, 3, 4, 5]
    # The place on the log at which they were decided: views and tokens count on its order.
    assert [one["source"]["offset"] for one in events] == [0, *[control_] * 3, last]
    assert [one["commandId"] for one in events[1:4]] == [one["commandId"] for one in ended]


def test_the_record_on_the_changelog_is_in_the_transaction_and_never_a_tombstone(
    deciding: Deciding,
) -> None:
    register(deciding)
    failing = update(deciding, "Bea")
    deciding.decide()
    deciding.breaks = lambda _: False
    replay(deciding, failing)
    deciding.decide()
    values = [
        one.value for one in deciding.topics[NAMES.changelog] if one.key == PARKED_PREFIX + b"u"
    ]
    assert len(values) == 2
    assert values[0]
    assert values[1] == b""


def test_a_replay_ends_at_the_first_failure(deciding: Deciding) -> None:
    register(deciding)
    first, second = update(deciding, "Bea"), update(deciding, "Cid")
    send(deciding, "DeactivateUser")
    deciding.decide()
    replay(deciding, first)
    deciding.decide()
    failed = deciding.parked()[b"u"]
    assert [one.offset for one in failed.commands] == [1, 2, 3]
    assert failed.failure.attempts == 2

    deciding.breaks = lambda command: getattr(command, "first_name", None) == "Cid"
    replay(deciding, first)
    deciding.decide()
    left = deciding.parked()[b"u"]
    assert [one.offset for one in left.commands] == [second, second + 1]
    assert left.failure.attempts == 1
    said = deciding.outcomes()[-1]
    assert (said["ended"], said["left"], said["code"]) == (1, 2, "decide-failed")


def test_a_repeated_id_is_a_duplicate_of_what_is_parked(deciding: Deciding) -> None:
    id_ = str(uuid4())
    register(deciding)
    first = update(deciding, "Bea", id=id_)
    again = update(deciding, "Bea", id=id_)
    registered = deciding.send(b"u", deciding.log[0].value)
    deciding.decide(at_a_time=2)
    outcomes = {one["source"]["offset"]: one for one in deciding.outcomes()}
    assert outcomes[again]["status"] == "duplicate"
    assert outcomes[again]["of"] == {"status": "parked", "offset": first}
    assert outcomes[registered]["of"]["status"] == "accepted"
    deciding.breaks = lambda _: False
    replay(deciding, first)
    late = update(deciding, "Bea", id=id_)
    deciding.decide()
    assert deciding.outcomes()[-1]["source"]["offset"] == late
    assert deciding.outcomes()[-1]["of"]["status"] == "accepted"
    assert len(deciding.events()) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"type": "RenameUser", "aggregateId": "u"},
        {"type": "DeactivateUser", "aggregateId": "u", "schemaVersion": 2},
    ],
)
def test_what_a_newer_program_may_know_is_parked(deciding: Deciding, value: object) -> None:
    register(deciding)
    deciding.send(b"u", value)
    behind = send(deciding, "DeactivateUser")
    deciding.decide()
    assert [status for _, status in deciding.statuses()] == ["accepted", "parked", "parked"]
    assert deciding.parked()[b"u"].commands[1].offset == behind


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"u", b"no JSON"),
        (b"u", {"type": "UpdateUserProfile", "aggregateId": "u", "email": 1}),
        (b"u", {"type": "RenameUser", "aggregateId": "v"}),
        (b"u", {"type": "RenameUser"}),
        (b"u", {"type": "RenameUser", "aggregateId": "u", "id": "no id"}),
        (b"u", [1]),
    ],
)
def test_garbage_stops_nobody(deciding: Deciding, key: bytes, value: object) -> None:
    register(deciding)
    deciding.send(key, value)
    send(deciding, "DeactivateUser")
    update(deciding, "Bea")
    deciding.send(key, value)
    deciding.decide()
    statuses = [status for _, status in deciding.statuses()]
    assert statuses == ["accepted", "dead-lettered", "accepted", "parked", "dead-lettered"]


def test_a_command_of_another_partition_is_not_parked() -> None:
    deciding = in_order(partitions=2)
    deciding.send(b"u-3", {"type": "RenameUser", "aggregateId": "u-3"})
    deciding.send(b"u-4", {"type": "RenameUser", "aggregateId": "u-4"})
    deciding.send(b"u-5", {"type": "RenameUser", "aggregateId": "u-5"})
    deciding.decide()
    assert {status for _, status in deciding.statuses()} == {"parked", "dead-lettered"}


def test_dropped_commands_are_dead_letters_and_the_others_wait_on(deciding: Deciding) -> None:
    register(deciding)
    first = update(deciding, "Bea")
    second = update(deciding, "Cid")
    third = send(deciding, "DeactivateUser")
    deciding.decide()
    by = drop(deciding, first, first)
    deciding.decide()
    assert deciding.statuses()[-2:] == [(first, "dead-lettered"), (by, "unparked")]
    (letter,) = deciding.topics[NAMES.dead_commands]
    headers = dict(letter.headers)
    assert letter.value == deciding.log[first].value
    assert (headers[CODE], headers[SOURCE_OFFSET]) == (b"dropped", b"%d" % first)
    assert headers[DECIDED_BY] == b"%d" % by
    left = deciding.parked()[b"u"]
    assert [one.offset for one in left.commands] == [second, third]
    assert left.failure.attempts == 0

    drop(deciding, second, third)
    after = send(deciding, "DeactivateUser")
    deciding.decide()
    assert deciding.statuses()[-1] == (after, "accepted")
    assert deciding.parked() == {}


def test_a_control_for_what_has_changed_does_nothing(deciding: Deciding) -> None:
    register(deciding)
    replay(deciding, 7)
    failing = update(deciding, "Bea")
    drop(deciding, failing + 1, 99)
    deciding.decide()
    said = [one for one in deciding.outcomes() if one["status"] == "unparked"]
    assert [(one["code"], one["ended"], one["left"]) for one in said] == [
        ("nothing-parked", 0, 0),
        ("parked-changed", 0, 1),
    ]
    assert len(deciding.parked()[b"u"].commands) == 1


def test_a_forged_control_is_never_obeyed(deciding: Deciding) -> None:
    register(deciding)
    failing = update(deciding, "Bea")
    deciding.decide()
    deciding.breaks = lambda _: False
    genuine = encode_control(
        ReplayParked(id=uuid4(), aggregate_id="u", first=failing), NAMES.commands, bytes(32)
    )
    copied = encode_control(
        ReplayParked(id=uuid4(), aggregate_id="v", first=failing), NAMES.commands, bytes(range(32))
    )
    for value, headers in (
        (genuine.value, genuine.headers),
        (genuine.value, ()),
        (genuine.value, ((SIGNATURE, None),)),
        (genuine.value, copied.headers),
        (copied.value, copied.headers),
    ):
        deciding.send(b"u", value, *headers)
    deciding.decide()
    assert [status for _, status in deciding.statuses()[2:]] == ["dead-lettered"] * 5
    assert {one["code"] for one in deciding.outcomes()[2:]} == {"forged-control"}
    assert len(deciding.parked()[b"u"].commands) == 1


def test_without_a_control_key_no_control_is_obeyed() -> None:
    deciding = in_order(control_key=None)
    register(deciding)
    signed = encode_control(
        ReplayParked(id=uuid4(), aggregate_id="u", first=1), NAMES.commands, bytes(32)
    )
    deciding.send(b"u", signed.value, *signed.headers)
    deciding.send(b"u", b'{"type": "ReplayParked", "aggregateId": 1}')
    deciding.decide()
    codes = [one.get("code") for one in deciding.outcomes()]
    assert codes == [None, "forged-control", "unknown-type"]


def test_an_erasure_overtakes_and_ends_what_waits(deciding: Deciding) -> None:
    register(deciding)
    id_ = str(uuid4())
    failing = update(deciding, "Bea", id=id_)
    behind = send(deciding, "DeactivateUser")
    wrong = send(deciding, "EraseUser", expectedVersion=7)
    erase = send(deciding, "EraseUser")
    again = update(deciding, "Bea", id=id_)
    deciding.decide()
    assert deciding.statuses()[3:] == [
        (wrong, "rejected"),
        (failing, "rejected"),
        (behind, "rejected"),
        (erase, "accepted"),
        (again, "duplicate"),
    ]
    assert deciding.outcomes()[4]["code"] == "erased"
    assert deciding.outcomes()[-1]["of"]["code"] == "erased"
    assert deciding.parked() == {}
    assert [one["type"] for one in deciding.events()] == ["UserRegistered", "UserErased"]


def test_an_erasure_that_fails_is_not_parked(deciding: Deciding) -> None:
    register(deciding)
    deciding.breaks = lambda command: type(command).__name__ == "EraseUser"
    send(deciding, "EraseUser")
    send(deciding, "DeactivateUser")
    deciding.decide()
    statuses = [status for _, status in deciding.statuses()]
    assert statuses == ["accepted", "dead-lettered", "accepted"]


def test_what_is_parked_is_sealed_and_dies_with_the_key() -> None:
    deciding = in_order(encrypt_personal_data=True, master_key=SecretStr(new_master_key()))
    register(deciding)
    failing = update(deciding, "Bea")
    deciding.decide()
    content = deciding.parked()[b"u"].first.content
    assert b"Bea" not in content
    assert is_sealed_state(content)

    drop(deciding, failing, failing)
    deciding.decide()
    (letter,) = deciding.topics[NAMES.dead_commands]
    assert SEALED in dict(letter.headers)

    failing = update(deciding, "Bea")
    deciding.decide()
    deciding.breaks = lambda _: False
    replay(deciding, failing)
    deciding.decide()
    assert deciding.outcomes()[-2]["status"] == "accepted"


def test_what_cannot_be_opened_stays_parked_until_it_is_dropped() -> None:
    deciding = in_order(encrypt_personal_data=True, master_key=SecretStr(new_master_key()))
    register(deciding)
    failing = update(deciding, "Bea")
    deciding.decide()
    del deciding.topics[NAMES.keys]
    deciding.breaks = lambda _: False
    replay(deciding, failing)
    behind = send(deciding, "DeactivateUser")
    deciding.decide()
    assert deciding.outcomes()[-2]["code"] == "unreadable-state"
    assert [one.offset for one in deciding.parked()[b"u"].commands] == [failing, behind]
    id_ = deciding.parked()[b"u"].first.command
    drop(deciding, failing, failing)
    deciding.decide()
    (letter,) = deciding.topics[NAMES.dead_commands]
    assert letter.value is None
    assert deciding.outcomes()[-2]["commandId"] == str(UUID(bytes=id_))


def test_a_full_list_makes_dead_letters(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "MAX_COMMANDS", 2)
    register(deciding)
    for name in ("Bea", "Cid", "Dan"):
        update(deciding, name)
    deciding.decide()
    assert deciding.outcomes()[-1]["code"] == "parked-full"
    monkeypatch.setattr(parked, "MAX_BYTES", 10)
    register(deciding, "v")
    update(deciding, "Bea", "v")
    deciding.decide()
    assert deciding.outcomes()[-1]["code"] == "decide-failed"
    assert deciding.outcomes()[-1]["status"] == "dead-lettered"


@pytest.mark.parametrize(("bound", "most"), [("MAX_AGGREGATES", 1), ("MAX_PARTITION_BYTES", 300)])
def test_a_program_that_decides_nothing_stops_before_it_commits(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(parking, bound, most)
    for user in ("u", "v"):
        register(deciding, user)
        update(deciding, "Bea", user)
        update(deciding, "Cid", user)
    with pytest.raises(PartitionFatal, match=r"this program decides too little"):
        deciding.decide(at_a_time=3)
    assert len(deciding.outcomes()) == 3
    deciding.breaks = lambda _: False
    replay(deciding, 1)
    deciding.decide()
    assert deciding.parked() == {}


@pytest.mark.parametrize("order", ["skip", "aggregate"])
def test_a_share_of_failures_stops_the_partition_and_is_remembered(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_window, "WINDOW", 100)
    deciding = in_order(dead_letter_order=order, dead_letter_limit=0.03)
    for number in range(3):
        register(deciding, f"u{number}")
        update(deciding, "Bea", f"u{number}")
        deciding.send(b"u", b"no JSON")
    deciding.decide(at_a_time=1)
    register(deciding, "v")
    update(deciding, "Bea", "v")
    for _ in range(2):  # a worker that starts again gets no other allowance
        with pytest.raises(PartitionFatal, match=r"CQRS_DEAD_LETTER_LIMIT"):
            deciding.decide(at_a_time=1)
    assert len(deciding.outcomes()) == 10
    deciding.breaks = lambda _: False
    deciding.decide(at_a_time=1)
    assert deciding.outcomes()[-1]["status"] == "accepted"


def test_what_is_parked_stays_parked_when_parking_is_switched_off(deciding: Deciding) -> None:
    register(deciding)
    failing = update(deciding, "Bea")
    deciding.decide()
    off = Deciding(control_key=SecretStr(KEY))
    off.topics, off.log = deciding.topics, deciding.log
    send(off, "DeactivateUser")
    replay(off, failing)
    off.breaks = updates
    off.decide()
    assert [status for _, status in off.statuses()[2:]] == ["parked", "unparked"]
    off.breaks = lambda _: False
    replay(off, failing)
    off.decide()
    assert off.parked() == {}


def test_in_todays_order_a_failure_is_a_dead_letter() -> None:
    deciding = Deciding()
    deciding.breaks = updates
    register(deciding)
    update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    deciding.decide()
    statuses = [status for _, status in deciding.statuses()]
    assert statuses == ["accepted", "dead-lettered", "accepted"]
    assert not deciding.parked()
    position = orjson.loads(deciding.topics[NAMES.changelog][-1].value or b"")
    assert "recent" not in position


def test_a_record_of_a_newer_program_stops_the_partition(deciding: Deciding) -> None:
    register(deciding)
    update(deciding, "Bea")
    deciding.decide()
    (one,) = (one for one in deciding.topics[NAMES.changelog] if one.key == PARKED_PREFIX + b"u")
    deciding.topics[NAMES.changelog].append(type(one)(one.key, b"\xff", ()))
    with pytest.raises(PartitionFatal, match=r"newer program"):
        deciding.decide()
