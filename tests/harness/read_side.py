"""Events, and views in a namespace of their own, for the tests of the read side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from uuid import UUID

from aiokafka.structs import TopicPartition
from elasticsearch import AsyncElasticsearch
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
from streams.views.lifecycle import Follow, Serve
from streams.views.projector import RefusedEvents
from streams.views.store import ViewStore

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
_ID = UUID("22222222-2222-4222-8222-222222222222")
_SOURCE = Source("users.commands.v1", 0, 0)

Record = EventRecord[UserEvent]


def record(user_id: str, sequence: int, event: UserEvent, at: datetime = NOON) -> Record:
    """Wrap an event in its envelope; its time is `sequence` seconds after `at`."""
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
    """Return the event of a registration with this email address."""
    return UserRegistered(email, "Anna", last_name, "web")


# Elasticsearch refuses it: a keyword has at most 32,766 bytes.
REFUSED_UPDATE = UserProfileUpdated(last_name="x" * 40_000)


def encoded(deployed: Deployment, user_id: str, sequence: int, event: UserEvent) -> bytes:
    """Encode an event for partition 0; its command is at offset `sequence`."""
    source = Source(deployed.names.commands, 0, sequence)
    return encode(replace(record(user_id, sequence, event), source=source).to_wire())


async def send_events(deployed: Deployment, *events: tuple[str, bytes]) -> None:
    """Send events, pairs of a user's id and an encoded event, to partition 0 of the topic."""
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        for user_id, value in events:
            await producer.send(deployed.names.events, value, user_id.encode(), 0)
        await producer.flush()


async def view_dead_letters(deployed: Deployment) -> list[tuple[bytes | None, bytes | None]]:
    """Read key and code of each dead letter of views in partition 0."""
    topic = TopicPartition(deployed.names.dead_views, 0)
    async with open_logs(deployed.settings, [topic]) as logs:
        end = (await logs.end_offsets([topic]))[topic]
        return [
            (one.key, dict(one.headers)[CODE])
            async for some in logs.read(topic, 0, end)
            for one in some
        ]


async def none_refused(refused: Sequence[RefusedEvents]) -> None:
    """Fail: for projectors of which Elasticsearch must refuse no document."""
    raise AssertionError(refused)


@asynccontextmanager
async def namespace(servers: Servers) -> AsyncIterator[Settings]:
    """Open settings with a namespace of their own; delete its view at the end, if there is one."""
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
    """Create the first index of the user view and open it, ready for documents and queries."""
    async with connect(settings, timeout=timeout) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await indices.create(1, {}, followed=True)
        await serve(indices, 1)
        index = in_namespace(settings, USER_VIEWS.index)
        yield ViewStore(
            client, index, name=f"{index.alias}-v1", bulk_documents=settings.bulk_documents
        )


async def serve(indices: ViewIndices, number: int) -> None:
    """Let queries read this index, complete or not."""
    found = await indices.look(None)
    (state,) = [one for one in found.indices if one.number == number]
    await indices.carry_out(Serve(state, found.bearers))


async def follow(indices: ViewIndices, number: int) -> None:
    """Let workers follow this index."""
    (state,) = [one for one in await indices.all() if one.number == number]
    await indices.carry_out(Follow(state))


@asynccontextmanager
async def snapshot(client: AsyncElasticsearch, index: str) -> AsyncIterator[str]:
    """Make a snapshot of an index as it is now; the repository's name is the index's."""
    repository = f"snapshots-{index}"
    location = {"type": "fs", "settings": {"location": index}}
    await client.snapshot.create_repository(name=repository, repository=location)
    await client.snapshot.create(
        repository=repository, snapshot="first", indices=index, wait_for_completion=True
    )
    try:
        yield repository
    finally:
        await client.snapshot.delete(repository=repository, snapshot="first")
        await client.snapshot.delete_repository(name=repository)
