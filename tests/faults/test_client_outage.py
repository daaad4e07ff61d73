"""A client whose broker goes away: it reports that in time, closes, and continues afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NotEnoughReplicasError
from aiokafka.protocol.produce import ProduceRequest
from faust.types import TP

from agents.client import open_commands
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.commands import DeactivateUser
from models.errors import OutcomeTimeout, Transient
from models.outcomes import Rejection
from streams.kafka.clients import RETRY_BACKOFF_MS, admin_client, new_producer, started
from streams.kafka.topics import COMMAND_BYTES, topic_specs
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from tests.conftest import Deploy


@pytest.fixture
def killable(stack: EmbeddedStack) -> Iterator[EmbeddedStack]:
    """The stack; its Kafka runs again after the test."""
    yield stack
    if not stack.kafka.is_ready:
        stack.kafka.start()


async def test_no_broker_is_a_timeout_and_disconnecting_ends(
    killable: EmbeddedStack, deploy: Deploy
) -> None:
    settings = deploy(outcome_timeout=1.0).settings
    before = asyncio.all_tasks()
    async with open_commands(settings) as commands:
        killable.kafka.kill()
        with pytest.raises(OutcomeTimeout):
            await commands.dispatch(DeactivateUser(aggregate_id="anna"))
    assert commands._reading.done()  # it is closed, though the broker could not be told
    left = asyncio.all_tasks() - before  # kept: Python complains of those that nobody ended
    await wait_until(lambda: all(task.done() for task in left), what=f"{left} end")


async def test_a_client_continues_when_the_broker_is_back(
    killable: EmbeddedStack, deploy: Deploy
) -> None:
    settings = deploy("commands", outcome_timeout=90.0).settings
    async with open_commands(settings) as commands:
        for _ in range(2):
            outcome = await commands.dispatch(DeactivateUser(aggregate_id="anna"))
            assert isinstance(outcome, Rejection)
            killable.kafka.kill()
            killable.kafka.start()
        outcome = await commands.dispatch(DeactivateUser(aggregate_id="anna"))
        assert isinstance(outcome, Rejection)


async def test_a_client_continues_when_a_broker_refuses_no_more(deploy: Deploy) -> None:
    """Behind a batch that was refused for good, a broker takes nothing more of that producer."""
    deployed = deploy("commands", partitions=1)
    command = DeactivateUser(aggregate_id="anna")
    async with open_commands(deployed.settings) as commands:
        assert isinstance(await commands.dispatch(command), Rejection)
        await limit_commands(deployed, 1)
        for _ in range(2):
            with pytest.raises(Transient, match=r"\(MessageSizeTooLargeError\): send it again"):
                await commands.dispatch(command)
        await limit_commands(deployed, COMMAND_BYTES)
        for _ in range(2):
            assert isinstance(await commands.dispatch(command), Rejection)


async def limit_commands(deployed: Deployment, size: int) -> None:
    """Let the command topic take batches of this many bytes."""
    topic = deployed.names.commands
    specs = topic_specs(deployed.settings, deployed.names)
    (spec,) = (spec for spec in specs if spec.name == topic)
    configs = {**spec.configs, "max.message.bytes": str(size)}
    async with admin_client(deployed.settings) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])


async def test_a_refused_transaction_is_retried_ever_more_slowly_and_says_why(
    deploy: Deploy,
) -> None:
    """As when two of three brokers are away: the one that is left gets no storm of retries."""
    deployed = deploy(partitions=1, transaction_timeout=2.0)
    topic = deployed.names.events
    producer = TransactionalProducer(deployed.settings, "refused", TP(topic, 0))
    await producer.start()
    assert producer._producer is not None
    client, attempts = producer._producer.client, 0
    send_to_broker = client.send

    async def send(node: int, request: Any, **options: Any) -> Any:
        nonlocal attempts
        if not isinstance(request, ProduceRequest):
            return await send_to_broker(node, request, **options)
        attempts += 1
        refused = (0, NotEnoughReplicasError.errno, -1, -1, -1)
        return SimpleNamespace(API_VERSION=7, topics=[(topic, [refused])])

    client.send = send
    try:
        with pytest.raises(Transient, match=rf"of {topic}\[0\]: NotEnoughReplicasError"):
            await producer.commit({topic: producer.batches([OutputRecord(b"k", b"v")])})
    finally:
        await producer.close()
    assert 5 < attempts < 50


async def test_connecting_to_a_dead_broker_is_retried_with_backoff(
    killable: EmbeddedStack, deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a producer waits for, it does not take the machine from a broker that starts."""
    deployed = deploy()
    producer = new_producer(
        deployed.settings, transactional_id="patient", retry_backoff_ms=RETRY_BACKOFF_MS
    )
    async with started(producer, deployed.settings):
        await producer.begin_transaction()
        began = time.monotonic()
        killable.kafka.kill()
        sending = asyncio.create_task(producer.send(deployed.names.events, b"", partition=0))
        # Each failed attempt is followed by the wait that `test_aiokafka_patches.py` has.
        await wait_until(lambda: caplog.text.count("Unable connect to node") >= 3)
        killable.kafka.start()
        await sending
        attempts = caplog.text.count("Unable connect to node")
        assert attempts < 5 + 20 * (time.monotonic() - began)  # without a wait: 200 per second
        await producer.commit_transaction()
