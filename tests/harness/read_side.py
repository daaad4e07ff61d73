"""What the tests of the read side share: a view of their own, and events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from uuid import UUID

from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment, Servers, new_settings
from models.events import UserEvent, UserProfileUpdated, UserRegistered
from models.messages import EventRecord, Source
from models.wire import encode
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import in_namespace
from streams.kafka.clients import new_producer, started
from streams.kafka.dead_letters import CODE
from streams.kafka.log_reader import open_logs
from streams.settings import Settings
from streams.views.indices import ViewIndices
from streams.views.projector import Refused
from streams.views.store import ViewStore

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
_ID = UUID("22222222-2222-4222-8222-222222222222")
_SOURCE = Source("users.commands.v1", 0, 0)

Record = EventRecord[UserEvent]


def record(user_id: str, sequence: int, event: UserEvent, at: datetime = NOON) -> Record:
    """An event in its envelope; each is a second later than the one before."""
    return EventRecord(
        id=_ID,
        aggregate_id=user_id,
        sequence=sequence,
        timestamp=at + timedelta(seconds=sequence),
        command_id=_ID,
        correlation_id=None,
        causation_id=None,
        source=_SOURCE,
        event=event,
    )


def registered(email: str, last_name: str = "Müller") -> UserRegistered:
    """A registration of Anna with this address."""
    return UserRegistered(email, "Anna", last_name, "web")


# No keyword has as many bytes as this name.
REFUSED_UPDATE = UserProfileUpdated(last_name="x" * 40_000)


def encoded(deployed: Deployment, user_id: str, sequence: int, event: UserEvent) -> bytes:
    """An event for partition 0, of a command of its own."""
    source = Source(deployed.names.commands, 0, sequence)
    return encode(replace(record(user_id, sequence, event), source=source).to_wire())


async def send_events(deployed: Deployment, *events: tuple[str, bytes]) -> None:
    """Put these, each with its user's id, on partition 0 of the event topic."""
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        for user_id, value in events:
            await producer.send(deployed.names.events, value, user_id.encode(), 0)
        await producer.flush()


async def view_letters(deployed: Deployment) -> list[tuple[bytes | None, bytes | None]]:
    """Key and code of each dead letter of views, of partition 0."""
    topic = TopicPartition(deployed.names.dead_views, 0)
    async with open_logs(deployed.settings, [topic]) as logs:
        end = (await logs.end_offsets([topic]))[topic]
        return [
            (one.key, dict(one.headers)[CODE])
            async for some in logs.read(topic, 0, end)
            for one in some
        ]


async def none_refused(refused: Sequence[Refused]) -> None:
    """What the projector is given where Elasticsearch takes everything."""
    raise AssertionError(refused)


@asynccontextmanager
async def namespace(servers: Servers) -> AsyncIterator[Settings]:
    """Settings whose view nobody else uses; its index is deleted at the end, if there is one."""
    settings = new_settings(servers)
    try:
        yield settings
    finally:
        await delete_view(settings)


async def delete_view(settings: Settings) -> None:
    """Delete the indices of the settings' view."""
    async with connect(settings, timeout=30) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        for state in await indices.all():
            await indices.drop(state.name)


@asynccontextmanager
async def user_views(settings: Settings, *, timeout: float = 30) -> AsyncIterator[ViewStore]:
    """The settings' view, its first index to be written and read."""
    async with connect(settings, timeout=timeout) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await indices.create(1, {}, followed=True)
        await indices.serve(f"{indices.alias}-v1")
        index = in_namespace(settings, USER_VIEWS.index)
        yield ViewStore(
            client, index, name=f"{index.alias}-v1", bulk_documents=settings.bulk_documents
        )
