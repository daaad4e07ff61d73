"""An aggregate as the state table holds it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.users import USERS
from models.events import UserDeactivated
from models.user import User
from streams.state.snapshot import (
    DEDUPE_WINDOW,
    Remembered,
    RememberedAcceptance,
    RememberedRejection,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
)
from tests.unit.samples import ANNA, COMMAND_ID, EVENT_ID, keys, times
from tests.unit.samples import given as user_of

ids = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, 2**63 - 1)
answers: st.SearchStrategy[Remembered] = st.builds(
    RememberedAcceptance, ids, numbers, numbers, numbers, st.booleans()
) | st.builds(RememberedRejection, ids, keys, keys)
users = st.builds(User, keys, keys, keys, keys, st.booleans(), times, times, st.booleans())


@settings(deadline=None)
@given(st.builds(Snapshot, users, numbers, st.lists(answers, max_size=DEDUPE_WINDOW).map(tuple)))
def test_a_snapshot_is_read_as_it_was_written(snapshot: Snapshot[User]) -> None:
    assert decode_snapshot(USERS, encode_snapshot(snapshot)) == snapshot


def test_an_acceptance_of_an_older_program_has_indexed_event_ids() -> None:
    older = msgspec.msgpack.encode((None, 4, ((1, COMMAND_ID.bytes, 4, 2, 17),)))
    expected = RememberedAcceptance(COMMAND_ID.bytes, 4, 2, 17, indexed=True)
    assert decode_snapshot(USERS, older).remembered == (expected,)


def test_no_value_is_an_aggregate_that_does_not_exist() -> None:
    assert decode_snapshot(USERS, None) == Snapshot(None, 0, ())


@pytest.mark.parametrize(
    "value", [b"", b"[1,[],[]]", encode_snapshot(Snapshot("x", 1, ())), b"\x93\xc0\xa11\x90"]
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_snapshot(USERS, value)


def test_the_window_keeps_the_last_replies() -> None:
    snapshot = Snapshot(user_of(ANNA, UserDeactivated()), 2, ())
    for number in range(DEDUPE_WINDOW + 3):
        snapshot = snapshot.remembering(RememberedAcceptance(bytes([number]) * 16, 2, 1, number))
    kept: list[Any] = [answer.command[0] for answer in snapshot.remembered]
    assert kept == list(range(3, DEDUPE_WINDOW + 3))


def test_a_snapshot_has_the_replies_to_its_last_commands() -> None:
    yes = RememberedAcceptance(COMMAND_ID.bytes, 4, 2, 17)
    no = RememberedRejection(EVENT_ID.bytes, "user-exists", "User already exists")
    snapshot = Snapshot(user_of(ANNA), 4, (yes, no))
    assert snapshot.reply_to(COMMAND_ID.bytes) == yes
    assert snapshot.reply_to(EVENT_ID.bytes) == no
    assert Snapshot(user_of(ANNA), 4, ()).reply_to(COMMAND_ID.bytes) is None
