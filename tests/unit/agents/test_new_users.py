"""Which users a page of `GetNewUsers` has: those who can be shown, in the order of arrival."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.new_users import NewUserHandler
from models.queries import GetNewUsers
from streams.kafka.records import Record
from streams.settings import Settings
from streams.views.checkpoint import Checkpoint, IndexCheckpoints
from streams.views.reader import ViewReader

TOPIC_ID = "0" * 32
ANNA = {
    "email": "anna@example.org",
    "firstName": "Anna",
    "lastName": "B",
    "isActive": True,
    "registeredAt": "2026-01-01T00:00:00.000Z",
    "lastUpdated": "2026-01-01T00:00:00.000Z",
    "version": 1,
}


class View:
    """An index that has all events of one partition."""

    def __init__(self, events: int, documents: dict[str, dict[str, Any]]) -> None:
        self.events = events
        self.documents = documents
        self.lookups = 0

    async def checkpoints(self, _numbers: Iterable[int]) -> IndexCheckpoints:
        return IndexCheckpoints(
            "user-views-v1", {0: Checkpoint(position=self.events, topic=TOPIC_ID)}
        )

    async def fetch(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        self.lookups += 1
        return {id_: self.documents[id_] for id_ in ids if id_ in self.documents}


def handler(monkeypatch: pytest.MonkeyPatch, view: View, users: list[str]) -> NewUserHandler:
    """Return a handler for a topic with the registrations of these users."""
    records = [
        Record(
            "users.events.v1",
            0,
            offset,
            0,
            user.encode(),
            json.dumps({"aggregateId": user, "sequence": 1}).encode(),
        )
        for offset, user in enumerate(users)
    ]

    async def look_up(*_: object) -> SimpleNamespace:
        return SimpleNamespace(id=TOPIC_ID, partitions=1)

    async def read(_partition: object, start: int, end: int) -> AsyncIterator[list[Record]]:
        for at in range(start, end, 100):
            yield records[at : min(at + 100, end)]

    @asynccontextmanager
    async def open_logs(*_: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(read=read)

    monkeypatch.setattr("agents.new_users.look_up_topic", look_up)
    monkeypatch.setattr("streams.views.arrivals.open_logs", open_logs)
    return NewUserHandler(Settings(partitions=1), cast(ViewReader, view))


async def pages(handler: NewUserHandler, limit: int) -> list[list[str]]:
    """Follow the pages up to the first empty one."""
    found: list[list[str]] = []
    query = GetNewUsers(limit)
    while True:
        page = await handler.get_new(query)
        if not page.items:
            return found
        found.append([user.id for user in page.items])
        query = GetNewUsers(limit, page.cursor)


@pytest.mark.parametrize(
    "hidden",
    [
        {"id": "gone", "version": 2},
        {"id": "gone", "version": 1, "refused": ANNA | {"id": "gone"}},
        None,
    ],
    ids=["erased", "refused", "no document"],
)
@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_a_page_is_empty_only_if_nobody_has_come_since(
    monkeypatch: pytest.MonkeyPatch, hidden: dict[str, Any] | None, limit: int
) -> None:
    users = ["gone0", "gone1", "anna", "gone2", "bert", "gone3", "gone4", "carl", "gone5"]
    shown = ["anna", "bert", "carl"]
    documents = {user: ANNA | {"id": user} if user in shown else hidden for user in users}
    found = {user: document for user, document in documents.items() if document is not None}
    new = handler(monkeypatch, View(len(users), found), users)
    expected = [shown[at : at + limit] for at in range(0, len(shown), limit)]
    assert await pages(new, limit) == expected


async def test_many_erased_users_in_a_row_take_few_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = View(1001, {"anna": ANNA | {"id": "anna"}})
    new = handler(monkeypatch, view, [f"gone{n}" for n in range(1000)] + ["anna"])
    page = await new.get_new(GetNewUsers(limit=1))
    assert [user.id for user in page.items] == ["anna"]
    assert view.lookups < 20
