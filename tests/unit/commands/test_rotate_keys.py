"""Which master key wraps which data key, as the keys topic says it; wrapping them anew."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from pydantic import SecretStr

from models.errors import Transient
from streams.aggregate import TopicNames
from streams.commands import rotate_keys as rotation
from streams.commands.rotate_keys import KeysLog, Rotated, WrappedKeys, rotate_keys
from streams.encryption import key_ring
from streams.encryption.cipher import new_key
from streams.encryption.keys import MasterKeys
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord
from streams.settings import Settings

NEW, OLD, FOREIGN = new_key(), new_key(), new_key()


def wrapped_with(master: bytes, user: bytes) -> bytes:
    return MasterKeys(master).wrap(user, new_key())


def keys_log() -> KeysLog:
    return KeysLog(MasterKeys(NEW, OLD), TopicPartition("keys", 3))


def test_the_last_record_of_a_user_counts() -> None:
    log = keys_log()
    for user, master in ((b"anna", OLD), (b"ben", OLD), (b"cleo", FOREIGN), (b"dan", NEW)):
        log.apply(user, wrapped_with(master, user))
    assert log.summary() == WrappedKeys(3, current=1, second=2, unknown=1, damaged=0, replaced=0)
    log.apply(b"anna", wrapped_with(NEW, b"anna"))
    log.apply(b"cleo", None)
    assert log.summary() == WrappedKeys(3, current=2, second=1, unknown=0, damaged=0, replaced=2)
    assert log.second.keys() == {b"ben"}


def test_a_destroyed_key_is_not_wrapped_anew() -> None:
    log = keys_log()
    log.apply(b"anna", wrapped_with(OLD, b"anna"))
    log.apply(b"anna", None)
    log.apply(b"\0roll", None)
    assert not log.second
    assert log.summary() == WrappedKeys(3, current=0, second=0, unknown=0, damaged=0, replaced=1)


def test_without_a_second_master_key_other_keys_are_unknown() -> None:
    log = KeysLog(MasterKeys(NEW), TopicPartition("keys", 0))
    log.apply(b"anna", wrapped_with(OLD, b"anna"))
    assert log.summary() == WrappedKeys(0, current=0, second=0, unknown=1, damaged=0, replaced=0)


def damaged(wrapped: bytes) -> bytes:
    """As if one bit of the medium had turned."""
    return wrapped[:-1] + bytes([wrapped[-1] ^ 1])


def test_what_cannot_be_opened_is_named_and_holds_up_nothing() -> None:
    log = keys_log()
    log.apply(b"anna", damaged(wrapped_with(OLD, b"anna")))
    log.apply(b"ben", wrapped_with(OLD, b"ben"))
    log.apply(b"cleo", wrapped_with(FOREIGN, b"cleo"))
    log.apply(b"dan", damaged(wrapped_with(NEW, b"dan")))
    log.apply(b"eve", b"of an older version, or garbage")
    assert log.summary() == WrappedKeys(3, current=0, second=1, unknown=2, damaged=2, replaced=0)
    assert log.second.keys() == {b"ben"}
    assert log.rotated(1) == Rotated(3, 1, unknown=("cleo", "eve"), damaged=("anna", "dan"))
    log.apply(b"anna", wrapped_with(OLD, b"anna"))
    log.apply(b"dan", None)
    assert log.summary() == WrappedKeys(3, current=0, second=2, unknown=2, damaged=0, replaced=2)


MAX_GAP_S = 600.0


class Partition:
    """A partition of the keys topic, whose owner is fenced at once; a record for each offset."""

    def __init__(self, clock: str) -> None:
        self.records: list[Record | None] = []
        self.clocks = {"monotonic": 0.0, "time": 0.0}
        self._clock = clock
        self.after_reads: list[Callable[[], None]] = []  # what happens during each read
        self.write({user: wrapped_with(OLD, user) for user in (b"anna", b"ben")})

    def write(self, keys: Mapping[bytes, bytes | None]) -> None:
        for user, value in keys.items():
            self.records.append(Record("keys", 0, len(self.records), 0, user, value))

    def suspend(self) -> None:
        """Let so much time pass that a tombstone may be gone."""
        self.clocks[self._clock] += MAX_GAP_S + 1

    def erase_and_forget(self) -> None:
        """Suspend this program; meanwhile Anna is erased, and compaction removes the tombstone."""
        self.suspend()
        self.write({b"anna": None})
        self.records = [
            None if record is None or record.key == b"anna" else record for record in self.records
        ]

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, len(self.records))

    async def read(
        self, _partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Record]]:
        found = [record for record in self.records[start:end] if record is not None]
        if found:
            yield found
        if self.after_reads:
            self.after_reads.pop(0)()

    async def commit(self, outputs: Mapping[str, Sequence[OutputRecord]]) -> None:
        for records in outputs.values():
            self.write({record.key: record.value for record in records if record.key is not None})


@pytest.fixture(params=["monotonic", "time"])
def partition(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Partition:
    partition = Partition(request.param)

    @asynccontextmanager
    async def open_logs(*_: Any) -> AsyncIterator[Partition]:
        yield partition

    async def work_as_owner(_: Settings, _tp: Any, _worker: str, work: Any, _purpose: str) -> None:
        await work(SimpleNamespace(commit=partition.commit, batches=list))

    async def max_key_gap_s(*_: Any) -> float:
        return MAX_GAP_S

    monkeypatch.setattr(rotation, "open_logs", open_logs)
    monkeypatch.setattr(rotation, "work_as_owner", work_as_owner)
    monkeypatch.setattr(rotation, "max_key_gap_s", max_key_gap_s)
    clocks = {name: lambda name=name: partition.clocks[name] for name in partition.clocks}
    monkeypatch.setattr(key_ring, "time", SimpleNamespace(**clocks))
    return partition


async def rotate() -> Rotated:
    keys = (SecretStr(base64.b64encode(key).decode()) for key in (NEW, OLD))
    settings = Settings().model_copy(
        update=dict(zip(("master_key", "second_master_key"), keys, strict=True))
    )
    return await rotate_keys(settings, TopicNames.of(settings, "users"), 0, "worker")


def keys_on(partition: Partition) -> set[bytes]:
    last = {record.key: record.value for record in partition.records if record is not None}
    return {user for user, value in last.items() if user is not None and value is not None}


async def test_keys_are_wrapped_anew(partition: Partition) -> None:
    assert (await rotate()).wrapped == 2
    assert keys_on(partition) == {b"anna", b"ben"}
    assert (await rotate()).wrapped == 0


async def test_a_key_destroyed_while_the_program_was_suspended_does_not_come_back(
    partition: Partition,
) -> None:
    """Whichever clock has noticed: that of the process, or that of the day."""
    partition.after_reads = [partition.erase_and_forget]
    assert (await rotate()).wrapped == 1
    assert keys_on(partition) == {b"ben"}


async def test_nothing_is_wrapped_after_a_read_that_took_too_long(partition: Partition) -> None:
    partition.after_reads = [partition.suspend, lambda: None, partition.erase_and_forget]
    with pytest.raises(Transient, match="was not read to its end within 600 s"):
        await rotate()
    assert keys_on(partition) == {b"ben"}
