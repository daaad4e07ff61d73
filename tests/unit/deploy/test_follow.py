"""`cqrs follow` whose time ends while its connections close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest

from deploy.cli import follow
from models.errors import Transient
from models.messages import Source
from models.outcomes import Accepted, Outcome, Rejection
from models.wire import encode
from streams.aggregate import TopicNames
from streams.audit.trail import Trail
from streams.kafka.records import Record
from streams.settings import Settings

ID = UUID(int=7)
NAMES = TopicNames.of(Settings(), "users")
NOON = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
COMMON: dict[str, Any] = {
    "command_id": ID,
    "aggregate_id": "anna",
    "timestamp": NOON,
    "source": Source(NAMES.commands, 1, 20),
}
ACCEPTED = Accepted(**COMMON, sequence=1, event_ids=(), token="t")
REJECTED = Rejection(**COMMON, code="user-exists", reason="User already exists")


def record(topic: str, offset: int, value: bytes) -> Record:
    return Record(topic, 1, offset, int(NOON.timestamp() * 1000), b"anna", value)


class Queries:
    async def execute(self, query: object, **_: object) -> None:
        """Answer at once: the view has everything."""


async def run_until_it_hangs(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome | None
) -> tuple[str, str | None, str]:
    """Follow a command with this outcome; return its last hop, its token, and the error if any."""
    hangs = asyncio.Event()

    async def trails(*_: object, **__: object) -> AsyncIterator[Trail]:
        trail = Trail(NAMES, ID)
        trail.add(record(NAMES.commands, 20, f'{{"id":"{ID}","type":"RegisterUser"}}'.encode()))
        if outcome is not None:
            trail.add(record(NAMES.outcomes, 30, encode(outcome)))
        yield trail
        if outcome is not ACCEPTED:
            await hangs.wait()

    @asynccontextmanager
    async def queries(_: Settings) -> AsyncIterator[Queries]:
        yield Queries()
        await hangs.wait()

    monkeypatch.setattr(follow, "follow_command", trails)
    monkeypatch.setattr("agents.client.open_queries", queries)
    following = follow._Following(Settings(), "table")
    try:
        await follow._in_time(following, ID, None, minutes=5, timeout=0.05)
    except Transient as error:
        return following.last, following.token, str(error)
    return following.last, following.token, ""


async def test_the_way_was_shown_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await run_until_it_hangs(monkeypatch, REJECTED) == ("decided", None, "")


async def test_searches_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await run_until_it_hangs(monkeypatch, ACCEPTED) == ("searchable", "t", "")


async def test_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    error = "after 0.05 s: it is not decided: does a command worker run?"
    assert await run_until_it_hangs(monkeypatch, None) == ("produced", None, error)
