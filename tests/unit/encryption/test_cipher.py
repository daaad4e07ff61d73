"""What is sealed opens with its key, in its place, unchanged, and in no other case."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Fatal, PartitionFatal, Poison
from models.events import USER_EVENTS, UserDeactivated, UserProfileUpdated, UserRegistered
from models.messages import EventRecord
from streams.encryption.cipher import (
    PERSONAL,
    DecryptionError,
    is_sealed_state,
    may_be_sealed,
    new_key,
    open_dead_letter,
    open_event,
    open_state,
    seal,
    seal_dead_letter,
    seal_event,
    seal_state,
    unseal,
)
from streams.encryption.events import open_personal, read_event
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.records import Record
from tests.harness.command_line import ROOT
from tests.unit.audit.histories import line
from tests.unit.samples import ANNA, record, wire_of

MASTER = new_key()
KEY, OTHER = new_key(), new_key()
UPDATED = UserProfileUpdated(last_name="Meier")


@given(data=st.binary(), place=st.binary())
def test_sealed_data_opens_in_its_own_place(data: bytes, place: bytes) -> None:
    assert unseal(KEY, seal(KEY, data, place), place) == data


@given(data=st.binary(), place=st.binary())
def test_the_same_data_is_sealed_differently_each_time(data: bytes, place: bytes) -> None:
    assert seal(KEY, data, place) != seal(KEY, data, place)


FORK = """
import os, sys
from streams.encryption.cipher import seal

seal(bytes(32), b"", b"")  # so that there are nonces to be had
fork = os.fork()
for _ in range(100):
    os.write(1, seal(bytes(32), b"", b""))
os._exit(os.waitpid(fork, 0)[1] if fork else 0)
"""


def test_no_nonce_is_used_twice_also_by_a_process_that_was_forked() -> None:
    command = [sys.executable, "-c", FORK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    sealed = [done.stdout[at : at + 28] for at in range(0, len(done.stdout), 28)]
    assert len({one[:12] for one in sealed}) == len(sealed) == 200


@given(data=st.binary(), place=st.binary(), other=st.binary())
def test_nothing_opens_with_another_key_or_in_another_place(
    data: bytes, place: bytes, other: bytes
) -> None:
    sealed = seal(KEY, data, place)
    with pytest.raises(DecryptionError):
        unseal(OTHER, sealed, place)
    if other != place:
        with pytest.raises(DecryptionError):
            unseal(KEY, sealed, other)


@given(data=st.binary(), at=st.integers(0), bit=st.integers(0, 7))
def test_nothing_opens_that_was_changed(data: bytes, at: int, bit: int) -> None:
    sealed = bytearray(seal(KEY, data, b""))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(DecryptionError):
        unseal(KEY, bytes(sealed), b"")


@given(garbage=st.binary(max_size=60))
def test_nothing_opens_that_was_never_sealed(garbage: bytes) -> None:
    with pytest.raises(DecryptionError):
        unseal(KEY, garbage, b"")


def test_what_is_of_another_user_or_another_kind_does_not_open() -> None:
    with pytest.raises(DecryptionError):
        open_state(seal_state(b"[]", b"anna", KEY), b"ben", KEY)
    with pytest.raises(DecryptionError):
        open_dead_letter(seal_dead_letter(b"{}", b"anna", KEY), b"ben", KEY)
    with pytest.raises(DecryptionError):
        open_dead_letter(seal_state(b"[]", b"anna", KEY)[1:], b"anna", KEY)


def test_a_state_is_sealed_as_a_whole() -> None:
    state = b'[1,["anna@example.org"],[]]'
    sealed = seal_state(state, b"anna", KEY)
    assert b"anna@" not in sealed
    assert is_sealed_state(sealed)
    assert open_state(sealed, b"anna", KEY) == state
    with pytest.raises(DecryptionError):
        open_state(sealed, b"anna", None)


def test_a_plain_state_is_left_unchanged() -> None:
    assert not is_sealed_state(b"[1,[],[]]")
    assert open_state(b"[1,[],[]]", b"anna", None) == b"[1,[],[]]"


def sealed(event: Any, sequence: int = 1) -> dict[str, Any]:
    wire = wire_of(record(event, sequence))
    seal_event(wire, event.personal, KEY)
    return wire


def test_personal_fields_of_an_event_become_one() -> None:
    wire = sealed(ANNA)
    assert not {"email", "firstName", "lastName"} & wire.keys()
    assert wire["registrationSource"] == "web"
    open_event(wire, ANNA.personal, KEY)
    assert wire == wire_of(record(ANNA))


def test_an_event_without_personal_fields_is_plain() -> None:
    assert sealed(UserDeactivated()) == wire_of(record(UserDeactivated()))


@pytest.mark.parametrize(
    "change", [{"aggregateId": "ben"}, {"sequence": 2}, {PERSONAL: "no base64!"}, {PERSONAL: 5}]
)
def test_sealed_fields_of_another_event_do_not_open(change: dict[str, Any]) -> None:
    with pytest.raises(DecryptionError):
        open_event({**sealed(ANNA), **change}, ANNA.personal, KEY)


def keys_with(*users: str) -> PartitionKeys:
    keys = PartitionKeys(MasterKeys(MASTER))
    for user in users:
        keys.apply(user.encode(), keys.make(user.encode())[0])
    return keys


def written(event: Any, sequence: int, sealing: PartitionSealer) -> Record:
    return line("t", 0, sealing.seal_event(record(event, sequence)), b"user-1")


def test_an_event_is_readable_until_its_key_is_gone_and_shredded_afterwards() -> None:
    keys = keys_with()
    sealing = PartitionSealer(keys, encrypt=True)
    lines = [written(ANNA, 1, sealing), written(UPDATED, 2, sealing)]
    assert all(may_be_sealed(line.value) for line in lines)

    def read(keys: PartitionKeys | None) -> list[EventRecord[Any]]:
        return [read_event(line, USER_EVENTS, keys) for line in lines]

    assert read(keys) == [record(ANNA, 1, offset=0), record(UPDATED, 2, offset=0)]
    assert not any(event.event.is_shredded for event in read(keys))
    keys.apply(b"user-1", None)
    shredded = read(keys)
    assert [event.event for event in shredded] == [
        UserRegistered("", "", "", "web"),
        UserProfileUpdated("", "", ""),
    ]
    assert all(event.event.is_shredded for event in shredded)
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set"):
        read(None)


def test_an_event_whose_key_does_not_open_it_is_poison() -> None:
    line = written(ANNA, 1, PartitionSealer(keys_with(), encrypt=True))
    with pytest.raises(Poison) as caught:
        read_event(line, USER_EVENTS, keys_with("user-1"))
    assert caught.value.code == "unreadable"


def test_a_plain_event_needs_no_keys() -> None:
    line = written(ANNA, 1, PartitionSealer())
    assert read_event(line, USER_EVENTS, None) == record(ANNA, offset=0)
    open_personal(data := wire_of(record(ANNA)), USER_EVENTS, None)
    assert data == wire_of(record(ANNA))


OF_OLD = seal(MASTER, new_key(), b"anna")
"""As older versions wrapped Anna's key: it does not name its master key."""


@pytest.mark.parametrize(
    "wrapped", [MasterKeys(MASTER).wrap(b"anna", KEY), OF_OLD], ids=["today's", "old"]
)
def test_another_master_key_opens_no_key(wrapped: bytes) -> None:
    with pytest.raises(PartitionFatal, match="CQRS_MASTER_KEY is not the one"):
        PartitionKeys(MasterKeys(new_key()), {b"anna": wrapped})
    keys = PartitionKeys(MasterKeys(new_key()))
    keys.apply(b"anna", wrapped)
    with pytest.raises(PartitionFatal, match="CQRS_MASTER_KEY is not the one"):
        keys.get(b"anna")
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set"):
        PartitionKeys(None, {b"anna": wrapped}).get(b"anna")


def test_keys_of_two_master_keys_are_not_damaged() -> None:
    """While keys are rotated, a process that was not given the new one must not call them lost."""
    old, new = MasterKeys(MASTER), MasterKeys(new_key())
    wrapped = {
        b"anna": new.wrap(b"anna", KEY),
        b"ben": old.wrap(b"ben", KEY),
        b"cleo": new.wrap(b"cleo", KEY),
    }
    for user in (b"anna", b"cleo"):
        with pytest.raises(PartitionFatal, match=f"of {user.decode()} is.*CQRS_SECOND_MASTER_KEY"):
            PartitionKeys(old, wrapped).get(user)
    assert PartitionKeys(old, wrapped).get(b"ben") == KEY
    both = PartitionKeys(MasterKeys(new.first, MASTER), wrapped)
    assert {both.get(user) for user in wrapped} == {KEY}


def _with_other_end(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGED = [
    b"",
    b"x",
    new_key(),
    OF_OLD,  # that is somebody else's
    MasterKeys(MASTER).wrap(b"anna", KEY),
    _with_other_end(MasterKeys(MASTER).wrap(b"ben", KEY)),
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_key_is_lost_to_its_user_alone(
    damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    master = MasterKeys(MASTER)
    keys = PartitionKeys(master, {b"ben": damaged, b"cleo": master.wrap(b"cleo", KEY)})
    assert [keys.get(b"ben"), keys.get(b"ben")] == [None, None]
    assert keys.get(b"cleo") == KEY
    (line,) = caplog.messages  # though it was asked for twice
    assert line.startswith("The data key of ben is damaged")


def test_the_only_key_of_a_partition_can_be_damaged() -> None:
    damaged = MasterKeys(MASTER).wrap(b"ben", KEY)[:-1] + b"?"
    assert PartitionKeys(MasterKeys(MASTER), {b"ben": damaged}).get(b"ben") is None


def test_a_second_master_key_opens_and_does_not_wrap() -> None:
    other = new_key()
    old, both, new = MasterKeys(MASTER), MasterKeys(other, MASTER), MasterKeys(other)
    wrapped = old.wrap(b"anna", KEY)
    assert both.unwrap(b"anna", wrapped) == KEY
    again = both.wrap(b"anna", both.unwrap(b"anna", wrapped))
    assert new.unwrap(b"anna", again) == KEY
    for master, of_another in ((old, again), (new, wrapped), (both, b"short")):
        with pytest.raises(DecryptionError):
            master.unwrap(b"anna", of_another)
    assert repr(MASTER) not in repr(both)
