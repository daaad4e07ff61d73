"""What a client does when outcomes cannot be read; the rest is tested on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, cast
from uuid import uuid4

import async_timeout
import pytest
from aiokafka.structs import TopicPartition

from agents.users import USERS
from deploy.waiting import wait_until
from models.errors import PartitionFatal, Transient
from streams.commands import client
from streams.commands.client import KafkaCommandBus, _PendingCommand
from streams.settings import Settings

SETTINGS = Settings(partitions=2)


class Damaged:
    """A consumer of outcomes; where it reads first, one partition is damaged."""

    def __init__(self) -> None:
        self.positions = {TopicPartition("users.outcomes.v1", number): 0 for number in range(2)}
        self.reads = 0

    def assignment(self) -> Collection[TopicPartition]:
        return self.positions.keys()

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 7)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.positions[tp] = offset

    async def getmany(self, **_: Any) -> dict[TopicPartition, Any]:
        await asyncio.sleep(0)
        if set(self.positions.values()) != {7}:
            raise PartitionFatal("users.outcomes.v1[1] is damaged on its broker")
        self.reads += 1
        return {}


async def test_outcomes_behind_a_damage_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is told once. It would be every second, for ever, for all partitions."""
    monkeypatch.setattr(client, "_READ_BACKOFF_S", 0.0)
    bus, reader = KafkaCommandBus(SETTINGS, USERS), Damaged()
    pending = _PendingCommand(uuid4(), asyncio.get_running_loop().create_future())
    bus._pending[b"anna"].append(pending)
    reading = asyncio.create_task(bus._read(cast(Any, reader)))
    async with async_timeout.timeout(30):
        with pytest.raises(
            Transient, match=r"\(users\.outcomes\.v1\[1\] is damaged .*same command id"
        ):
            await pending.outcome
        await wait_until(lambda: reader.reads > 1)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
