"""Parked commands are replayed and dropped by signed controls, and by nothing else."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from streams.commands.control import SIGNATURE, ReplayParked, encode_control
from streams.encryption.cipher import is_sealed_state
from streams.encryption.keys import new_master_key
from streams.kafka.dead_letters import CODE, DECIDED_BY, SEALED, SOURCE_OFFSET
from tests.unit.commands.deciding import NAMES, Deciding
from tests.unit.commands.parked_commands import (
    KEY,
    drop,
    in_order,
    register,
    replay,
    send,
    update,
    updates,
)

pytestmark = pytest.mark.usefixtures("without_servers")


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
