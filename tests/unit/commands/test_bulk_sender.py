"""What a sender says when Kafka fails: one error, whatever became of the other batches."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from models.errors import Transient
from streams.commands.bulk_sender import BulkSender


class FailingProducer:
    """A producer whose batches are all refused."""

    def create_batch(self) -> Any:
        return SimpleNamespace(append=lambda **_: True, record_count=lambda: 1)

    async def send_batch(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(KafkaTimeoutError())
        return failed


async def test_each_failed_batch_but_the_first_is_silent() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    sender = BulkSender(cast(AIOKafkaProducer, FailingProducer()), "users.commands.v1", 8)
    for number in range(40):
        await sender.add(f"user-{number}".encode(), b"{}")
    with pytest.raises(Transient, match="KafkaTimeoutError"):
        await sender.flush()
    del sender
    gc.collect()
    assert reported == []
