"""What a client does when Kafka refuses or damages something; the rest is on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any, cast
from uuid import uuid4

import async_timeout
import pytest
from aiokafka.errors import InvalidTimestampError, OutOfOrderSequenceNumber
from aiokafka.structs import TopicPartition

from agents.users import USERS
from deploy.waiting import wait_until
from models.commands import DeactivateUser
from models.errors import PartitionFatal, Transient
from models.messages import Source
from models.outcomes import Rejection
from streams.commands import client
from streams.commands.client import KafkaCommandBus, _PendingCommand
from streams.kafka import lasting_producer
from streams.kafka.lasting_producer import LastingProducer
from streams.settings import Settings

SETTINGS = Settings(partitions=2)
REJECTED = Rejection(
    command_id=uuid4(),
    timestamp=datetime.now(timezone.utc),
    source=Source("users.commands.v1", 1, 0),
    code="user-not-found",
    reason="User not found",
)


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


class Producer:
    """A producer as aiokafka has it: behind a record that was refused nothing is taken any more."""

    refused = False  # the next record of any of them

    def __init__(self, bus: KafkaCommandBus) -> None:
        self._bus = bus
        self._has_gap = False

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send_and_wait(self, *_: Any, **__: Any) -> None:
        if self._has_gap:
            raise OutOfOrderSequenceNumber
        if Producer.refused:
            Producer.refused, self._has_gap = False, True
            raise InvalidTimestampError
        for pending in self._bus._pending[b"anna"]:
            pending.outcome.set_result(REJECTED)


async def test_a_command_after_one_that_was_refused_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus = KafkaCommandBus(SETTINGS, USERS)
    monkeypatch.setattr(lasting_producer, "new_producer", lambda _: Producer(bus))
    command = DeactivateUser(aggregate_id="anna")
    bus._reading = asyncio.get_running_loop().create_future()  # type: ignore[assignment]
    async with LastingProducer(SETTINGS) as bus._producer:
        assert await bus.dispatch(command) is REJECTED
        monkeypatch.setattr(Producer, "refused", True)
        with pytest.raises(Transient, match=r"\(InvalidTimestampError\): send it again"):
            await bus.dispatch(command)
        assert await bus.dispatch(command) is REJECTED
