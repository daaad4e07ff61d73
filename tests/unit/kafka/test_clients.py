"""A client that cannot stop, since no broker answers, is ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from deploy.waiting import wait_until
from streams.kafka import clients
from streams.kafka.clients import stop

TP = TopicPartition("t", 0)


async def test_a_producer_that_sends_for_ever_leaves_no_task_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for new metadata, which will not come, before it sends its record again."""
    monkeypatch.setattr(clients, "_STOP_TIMEOUT_S", 0.1)
    before = asyncio.all_tasks()
    producer = AIOKafkaProducer(enable_idempotence=False, retry_backoff_ms=1)
    attempts = 0

    async def send(*_: Any, **__: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise KafkaConnectionError

    producer.client.send = send
    producer.client.cluster.leader_for_partition = lambda _: 1
    await producer._sender.start()
    await producer._message_accumulator.add_message(TP, b"k", b"v", timeout=1)
    await wait_until(lambda: attempts)
    left = asyncio.all_tasks() - before
    await stop(producer)
    left |= asyncio.all_tasks() - before
    assert left
    await wait_until(lambda: all(task.done() for task in left), what=f"{left} end")
