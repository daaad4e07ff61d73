"""The machinery knows no user: another aggregate plugs in, also in the same app."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from aiokafka.structs import TopicPartition

from agents.users import USERS
from deploy.ephemeral import Deployment
from models.commands import RegisterUser
from models.messages import Command
from models.outcomes import Accepted, DeadLettered, Rejection
from streams.aggregate import Aggregate, TopicNames
from streams.commands.client import KafkaCommandBus
from streams.kafka.clients import new_consumer
from streams.kafka.topics import create_topics, topic_specs
from tests.conftest import Deploy
from tests.integration.two_aggregates import COUNTERS, Count


@pytest.fixture
async def deployed(deploy: Deploy) -> Deployment:
    """One worker that decides users and counters."""
    deployed = deploy(partitions=2)
    counters = TopicNames.of(deployed.settings, COUNTERS.name)
    await create_topics(deployed.settings, topic_specs(deployed.settings, counters))
    deployed.start("commands", app="tests.integration.two_aggregates")
    return deployed


async def test_two_aggregates_in_one_app(deployed: Deployment) -> None:
    key = f"same-id-{uuid4()}"  # of a user and of a counter: they are different things

    async def dispatch(aggregate: Aggregate[Any], command: Command) -> object:
        async with KafkaCommandBus(deployed.settings, aggregate) as commands:
            return await commands.dispatch(command)

    register = RegisterUser(
        aggregate_id=key,
        email="a@example.org",
        first_name="A",
        last_name="B",
        registration_source="web",
    )
    assert isinstance(await dispatch(USERS, register), Accepted)
    counted = await dispatch(COUNTERS, Count(aggregate_id=key, by=3))
    assert isinstance(counted, Accepted)
    assert counted.sequence == 1
    assert isinstance(await dispatch(COUNTERS, Count(aggregate_id=key, by=11)), Rejection)


async def test_a_decision_that_raises_harms_no_other_command(deployed: Deployment) -> None:
    """Its command is a dead letter; what its handler had saved already is taken back."""
    key = f"counter-{uuid4()}"
    async with KafkaCommandBus(deployed.settings, COUNTERS) as commands:
        first = await commands.dispatch(Count(aggregate_id=key, by=1))
        broken = await commands.dispatch(Count(aggregate_id=key, by=0))
        second = await commands.dispatch(Count(aggregate_id=key, by=2))
    assert isinstance(first, Accepted)
    assert isinstance(broken, DeadLettered)
    assert (broken.code, broken.reason) == ("decide-failed", "deciding it raised ZeroDivisionError")
    assert isinstance(second, Accepted)
    assert (first.sequence, second.sequence) == (1, 2)
    assert await dead_letters(deployed) == 1


async def dead_letters(deployed: Deployment) -> int:
    names = TopicNames.of(deployed.settings, COUNTERS.name)
    consumer = new_consumer(deployed.settings)
    await consumer.start()
    try:
        partitions = [TopicPartition(names.dead_commands, number) for number in range(2)]
        consumer.assign(partitions)
        records: list[object] = []
        for tp, end in (await consumer.end_offsets(partitions)).items():
            while await consumer.position(tp) < end:
                records.extend((await consumer.getmany(tp, timeout_ms=1000)).get(tp, ()))
        return len(records)
    finally:
        await consumer.stop()
