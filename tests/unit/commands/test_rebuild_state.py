"""The fold from which states are rebuilt: what it takes, leaves out and refuses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timezone
from uuid import UUID

import pytest

from agents.users import USERS
from models.errors import Fatal
from models.events import UserDeactivated, UserErased, UserEvent, UserRegistered
from models.messages import EventRecord, Source
from models.user import User, evolve
from models.wire import encode
from streams.commands.rebuild_state import PartitionFold
from streams.encryption.cipher import seal_event
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.kafka.records import Record
from streams.worker.logs import fields_of

AT = datetime(2026, 11, 23, 10, tzinfo=timezone.utc)
ANNA = UserRegistered("anna@example.org", "Anna", "Müller", "web")
MASTER = bytes(32)


def event(id_: str, sequence: int, event: UserEvent) -> EventRecord[UserEvent]:
    return EventRecord(
        id=UUID(int=1),
        aggregate_id=id_,
        sequence=sequence,
        timestamp=AT,
        command_id=UUID(int=2),
        correlation_id=None,
        causation_id=None,
        source=Source("users.commands.v1", 0, 5),
        event=event,
    )


def record(id_: str, sequence: int, of: UserEvent) -> Record:
    return raw(id_.encode(), encode(event(id_, sequence, of).to_wire()))


def raw(key: bytes, value: bytes) -> Record:
    return Record("users.events.v1", 0, 7, 0, key, value)


def fold_of(records: Sequence[Record], keys: PartitionKeys | None = None) -> PartitionFold[User]:
    fold = PartitionFold(USERS, keys or PartitionKeys(None))
    fold.add(records)
    return fold


def test_each_aggregate_has_the_fold_of_its_events() -> None:
    fold = fold_of([record("a", 1, ANNA), record("b", 1, ANNA), record("a", 2, UserDeactivated())])
    registered = evolve(None, ANNA, AT)
    assert list(fold) == [
        (b"a", evolve(registered, UserDeactivated(), AT), 2),
        (b"b", registered, 1),
    ]
    assert (len(fold), fold.events) == (2, 3)


@pytest.mark.parametrize("sequences", [(2,), (1, 3), (1, 1)])
def test_events_that_were_lost_or_doubled_are_refused(sequences: Sequence[int]) -> None:
    with pytest.raises(Fatal, match=r"users\.events\.v1\[0\] at offset 7: after event .* of a"):
        fold_of([record("a", sequence, ANNA) for sequence in sequences])


def test_what_is_no_event_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fold = fold_of([raw(b"a", b"{}"), record("a", 1, ANNA)])
    assert len(fold) == 1
    (line,) = caplog.records
    assert line.getMessage().startswith("a record cannot be read and is left out: ")
    assert fields_of(line)["offset"] == 7


@pytest.mark.parametrize(("key", "version"), [(b"a", 2), (b"b", 1)])
def test_a_state_of_more_events_than_there_are_is_refused(key: bytes, version: int) -> None:
    fold = fold_of([record("a", 1, ANNA)])
    fold.check(b"a", 1)
    with pytest.raises(Fatal, match="events were lost, and the state cannot be rebuilt"):
        fold.check(key, version)


def test_personal_data_is_read_with_the_key_of_its_user() -> None:
    keys = PartitionKeys(MasterKeys(MASTER))
    keys.apply(b"a", keys.make(b"a")[0])
    sealed = sealed_record(keys)
    assert [*fold_of([sealed], keys)] == [*fold_of([record("a", 1, ANNA)])]


def test_an_erased_user_is_the_same_without_the_key() -> None:
    keys = PartitionKeys(MasterKeys(MASTER))
    keys.apply(b"a", keys.make(b"a")[0])
    sealed = sealed_record(keys)
    keys.apply(b"a", None)
    erased = record("a", 2, UserErased())
    fold = fold_of([sealed, erased], keys)
    assert [*fold] == [*fold_of([record("a", 1, ANNA), erased])]
    fold.check(b"a", 2)


def test_a_user_whose_key_was_lost_is_refused() -> None:
    keys = PartitionKeys(MasterKeys(MASTER))
    keys.apply(b"a", keys.make(b"a")[0])
    fold = fold_of([sealed_record(keys)], PartitionKeys(MasterKeys(MASTER)))
    with pytest.raises(Fatal, match="its key was lost; restore the keys topic"):
        fold.check(b"a", 1)


def test_encrypted_events_are_refused_without_the_master_key() -> None:
    keys = PartitionKeys(MasterKeys(MASTER))
    keys.apply(b"a", keys.make(b"a")[0])
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set"):
        fold_of([sealed_record(keys)], PartitionKeys(None, {b"a": keys.make(b"a")[0]}))


def sealed_record(keys: PartitionKeys) -> Record:
    wire = event("a", 1, ANNA).to_wire()
    key = keys.get(b"a")
    assert key is not None
    seal_event(wire, ANNA.personal, key)
    return raw(b"a", encode(wire))
