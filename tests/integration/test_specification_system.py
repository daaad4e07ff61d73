"""One test for each row of the specification about the system as a whole, named after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiokafka.structs import TopicPartition

from agents.client import open_commands, open_queries
from agents.user_audit import verify_users
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.commands import RegisterUser, UpdateUserProfile
from models.errors import Fatal
from models.outcomes import Accepted
from models.queries import GetUserById
from models.user_view import UserReadModel
from streams.buses import QueryBus
from streams.commands.client import KafkaCommandBus
from streams.kafka.clients import new_consumer
from tests.conftest import Deploy
from tests.harness.deployments import deployment


@pytest.fixture(scope="module")
def deployed(stack: EmbeddedStack) -> Iterator[Deployment]:
    with deployment(stack, "commands", "views", partitions=1) as running:
        yield running


@pytest.fixture
async def commands(deployed: Deployment) -> AsyncIterator[KafkaCommandBus]:
    async with open_commands(deployed.settings) as bus:
        yield bus


@pytest.fixture
async def queries(deployed: Deployment) -> AsyncIterator[QueryBus]:
    async with answering(deployed) as bus:
        yield bus


@asynccontextmanager
async def answering(deployed: Deployment) -> AsyncIterator[QueryBus]:
    """Queries, once the view worker has made the index."""
    async with open_queries(deployed.settings) as bus:

        async def answers() -> bool:
            with suppress(Fatal):
                await bus.execute(GetUserById("nobody"))
                return True
            return False

        await wait_until(answers)
        yield bus


async def register(commands: KafkaCommandBus) -> str:
    user = f"user-{uuid4()}"
    outcome = await commands.dispatch(
        RegisterUser(
            aggregate_id=user,
            email=f"{user}@example.org",
            first_name="Anna",
            last_name="Müller",
            registration_source="web",
        )
    )
    assert isinstance(outcome, Accepted)
    return user


async def view_of(queries: QueryBus, user: str) -> UserReadModel:
    found = await wait_until(lambda: queries.execute(GetUserById(user)), what="the view")
    assert isinstance(found, UserReadModel)
    return found


async def events_of(deployed: Deployment, user: str) -> list[dict[str, Any]]:
    """The committed events of a user, from the event topic."""
    tp = TopicPartition(deployed.names.events, 0)
    consumer = new_consumer(deployed.settings)
    await consumer.start()
    try:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        events: list[dict[str, Any]] = []
        while await consumer.position(tp) < end:
            records = (await consumer.getmany(tp, timeout_ms=100)).get(tp, ())
            events += (orjson.loads(one.value) for one in records if one.key == user.encode())
        return events
    finally:
        await consumer.stop()


async def test_event_bus(deployed: Deployment, commands: KafkaCommandBus) -> None:
    """The event topic: what was decided is published there, in order."""
    user = await register(commands)
    await commands.dispatch(UpdateUserProfile(aggregate_id=user, first_name="Änne"))
    events = await events_of(deployed, user)
    assert [(event["type"], event["sequence"]) for event in events] == [
        ("UserRegistered", 1),
        ("UserProfileUpdated", 2),
    ]


async def test_eventual_consistency(
    deployed: Deployment, commands: KafkaCommandBus, queries: QueryBus
) -> None:
    """Commands are decided while the views stand still; the views follow, and the lag is seen."""
    views = deployed.workers[1]
    views.suspend()
    try:
        user = await register(commands)
        assert await queries.execute(GetUserById(user)) is None
    finally:
        views.resume()
    assert (await view_of(queries, user)).first_name == "Anna"


async def test_polyglot_persistence(
    deployed: Deployment, commands: KafkaCommandBus, queries: QueryBus
) -> None:
    """Kafka holds the event, Elasticsearch the document made of it."""
    user = await register(commands)
    (event,) = await events_of(deployed, user)
    document = await view_of(queries, user)
    assert event["email"] == document.email
    assert event["sequence"] == document.version


async def test_the_sides_scale_apart(deploy: Deploy) -> None:
    """Each role is a worker of its own: with the command worker gone, the views still answer."""
    deployed = deploy("commands", "views", partitions=1)
    async with open_commands(deployed.settings) as commands, answering(deployed) as queries:
        user = await register(commands)
        await view_of(queries, user)
        worker = deployed.workers[0]
        assert worker.terminate() == 0
        assert (await queries.execute(GetUserById(user))).id == user
        deployed.start("commands")
        deployed.start("views")
        assert (await view_of(queries, await register(commands))).is_active


async def test_challenges(deployed: Deployment, commands: KafkaCommandBus) -> None:
    """Keeping the views in step is checked, not hoped for."""
    await register(commands)
    report = await verify_users(deployed.settings)
    assert report.first_violation is None
    assert report.documents == report.aggregates > 0
