"""What the tests of the read side share: a view of their own, and events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from uuid import UUID

from agents.user_views import USER_VIEWS
from deploy.faults.deployment import Servers, new_settings
from models.events import UserEvent, UserRegistered
from models.messages import EventRecord, Source
from streams.elasticsearch import connect
from streams.settings import Settings
from streams.view_store import ViewStore, open_view_store

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


@asynccontextmanager
async def namespace(servers: Servers) -> AsyncIterator[Settings]:
    """Settings whose view nobody else uses; its index is deleted at the end, if there is one."""
    settings = new_settings(servers)
    try:
        yield settings
    finally:
        await delete_view(settings)


async def delete_view(settings: Settings) -> None:
    """Delete the index of the settings' view, if there is one."""
    async with connect(settings, timeout=30) as client:
        await client.options(ignore_status=404).indices.delete(
            index=f"{settings.namespace}{USER_VIEWS.name}"
        )


@asynccontextmanager
async def user_views(settings: Settings, *, timeout: float = 30) -> AsyncIterator[ViewStore]:
    """The store of the settings' view, with its index."""
    async with open_view_store(settings, USER_VIEWS, timeout=timeout) as store:
        await store.create_if_missing()
        yield store
