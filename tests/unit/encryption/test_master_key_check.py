"""At its start a process learns from the keys topic whether its master key is the right one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, LeaderNotAvailableError
from aiokafka.structs import TopicPartition
from pydantic import SecretStr

from models.errors import Fatal, PartitionFatal, Transient
from streams.aggregate import TopicNames
from streams.encryption import key_ring
from streams.encryption.cipher import new_key, seal
from streams.encryption.key_ring import check_master_key
from streams.encryption.keys import MasterKeys
from streams.kafka.records import Record
from streams.settings import Settings

NEW, FORMER, FOREIGN = new_key(), new_key(), new_key()
NAMES = TopicNames.of(Settings(), "users")
ANNA = b"anna"


class Logs:
    """The partitions of the keys topic: the values of their records, or why they cannot be read.

    One without a leader, which is None, tells nothing.
    """

    def __init__(self, partitions: Sequence[Sequence[bytes | None] | Exception | None]) -> None:
        self._partitions = partitions
        self.read: list[int] = []

    async def stable_ends(
        self, partitions: Collection[TopicPartition], _timeout: float
    ) -> dict[TopicPartition, int]:
        told = (tp for tp in partitions if self._partitions[tp.partition] is not None)
        return dict.fromkeys(told, 7)

    async def last_record(
        self, tp: TopicPartition, _end: int, wanted: Callable[[Any], bool]
    ) -> Record | None:
        self.read.append(tp.partition)
        values = self._partitions[tp.partition]
        assert values is not None
        if values is AWAY:
            await asyncio.Event().wait()
        if isinstance(values, Exception):
            raise values
        records = [Record("keys", tp.partition, 0, 0, ANNA, value) for value in values]
        return next(filter(wanted, reversed(records)), None)


Check = Callable[..., Any]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check the master keys of a process against these partitions; return which were read."""

    async def check(*partitions: Any, first: bytes = NEW, second: bytes | None = None) -> list[int]:
        logs = Logs(partitions)

        @asynccontextmanager
        async def open_logs(*_: Any) -> AsyncIterator[Logs]:
            yield logs

        monkeypatch.setattr(key_ring, "open_logs", open_logs)
        encoded = (one and SecretStr(base64.b64encode(one).decode()) for one in (first, second))
        settings = Settings(partitions=len(partitions)).model_copy(
            update=dict(zip(("master_key", "second_master_key"), encoded, strict=True))
        )
        await check_master_key(settings, NAMES)
        return logs.read

    return check


def by(master: bytes) -> bytes:
    return MasterKeys(master).wrap(ANNA, new_key())


WRONG = pytest.raises(Fatal, match="CQRS_MASTER_KEY is not the one")
DAMAGED = PartitionFatal("keys[0] is damaged on its broker")
AWAY = LeaderNotAvailableError()


async def test_the_newest_key_of_a_partition_is_enough(check: Check) -> None:
    assert await check([by(FORMER), by(NEW), None], [by(NEW)], []) == [0]
    assert await check([], [None], [by(NEW)]) == [0, 1, 2]
    assert await check([], []) == [0, 1]


@pytest.mark.parametrize("place", range(3))
async def test_an_old_key_from_a_backup_stops_nobody_wherever_it_is(
    check: Check, place: int
) -> None:
    partitions = [[by(NEW)], [by(NEW)], [by(NEW)]]
    partitions[place].append(by(FORMER))
    await check(*partitions)


async def test_another_master_key_is_refused(check: Check) -> None:
    for partitions in (
        ([by(NEW)], [by(NEW)]),
        ([], [by(NEW)], []),
        ([seal(NEW, new_key(), ANNA)], []),  # of an older version
        ([by(FOREIGN), by(NEW)], [by(NEW)], [by(FOREIGN)]),
    ):
        with WRONG:
            await check(*partitions, first=FOREIGN)


async def test_master_keys_while_keys_are_rotated(check: Check) -> None:
    """Each of both opens; the former one alone does not, once new users have come."""
    rotating = [by(FORMER), by(NEW)], [by(FORMER)], [by(FORMER), by(NEW)]
    await check(*rotating, first=NEW, second=FORMER)
    await check(*rotating, first=FORMER, second=NEW)
    with WRONG:
        await check(*rotating, first=FORMER)


async def test_if_the_newest_key_is_damaged_any_that_opens_decides(check: Check) -> None:
    of_old = seal(NEW, new_key(), ANNA)
    await check([of_old, b"damaged", None])
    await check([by(NEW)[:-1] + b"?"])
    with WRONG:
        await check([of_old, b"damaged", None], first=FOREIGN)


@pytest.mark.parametrize(
    "unreadable", [None, AWAY, DAMAGED, KafkaTimeoutError(), Transient("a transaction stays open")]
)
async def test_a_partition_that_cannot_be_read_stops_no_start(
    check: Check, monkeypatch: pytest.MonkeyPatch, unreadable: Any
) -> None:
    monkeypatch.setattr(key_ring, "_CHECK_TIMEOUT_S", 0.01)
    assert (await check(unreadable, [by(NEW)]))[-1] == 1
    await check(unreadable, unreadable)
    with WRONG:
        await check(unreadable, [by(NEW)], first=FOREIGN)
