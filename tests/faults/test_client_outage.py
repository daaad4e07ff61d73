"""A client whose broker goes away: it reports that in time, closes, and continues afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from agents.client import open_commands
from deploy.embedded.stack import EmbeddedStack
from deploy.waiting import wait_until
from models.commands import DeactivateUser
from models.errors import OutcomeTimeout
from models.outcomes import Rejection
from streams.kafka.clients import RETRY_BACKOFF_MS, new_producer, started
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
    async with open_commands(settings) as commands:
        killable.kafka.kill()
        with pytest.raises(OutcomeTimeout):
            await commands.dispatch(DeactivateUser(aggregate_id="anna"))
        closing = time.monotonic()
    assert time.monotonic() - closing < 15


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
        killable.kafka.kill()
        sending = asyncio.create_task(producer.send(deployed.names.events, b"", partition=0))
        begin = time.monotonic()
        await wait_until(lambda: caplog.text.count("Unable connect to node") >= 30)
        # It is tried by the metadata's task and by the sender's, ten times per second at most.
        assert time.monotonic() - begin > 1
        killable.kafka.start()
        await sending
        await producer.commit_transaction()
