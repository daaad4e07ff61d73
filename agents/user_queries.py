"""Answers the queries about users from the view `user-views`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson

from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.registration_queries import RegistrationQueryHandler
from agents.user_views import EMAIL_FRAGMENTS, ORDER, USER_VIEWS
from agents.users import USERS
from models.errors import QueryError
from models.queries import MAX_LIMIT, GetActiveUsers, GetUserById, GetUsersByEmail, Page
from models.views import UserReadModel, is_tombstone
from streams.aggregate import Names
from streams.buses import QueryBus
from streams.elasticsearch.substring import fragment_query
from streams.settings import Settings
from streams.views.read_your_writes import Freshness
from streams.views.store import ViewStore, open_view_store

_TIMEOUT = 10.0  # seconds; a search takes milliseconds
_ACTIVE: Mapping[str, Any] = {"term": {"isActive": True}}


class UserQueryHandler:
    """The handlers of the three queries.

    Lists are in the order of registration, users of the same millisecond by id. That order never
    changes, so following cursors shows every user once who matched all the while, and at most once
    any other; a user who registers meanwhile comes at the end. `GetUserById` sees a document as
    soon as it is written, lists see it within a second, and both wait for a token's write.
    """

    def __init__(self, store: ViewStore) -> None:
        self._store = store

    def register_at(self, queries: QueryBus, freshness: Freshness) -> None:
        """Make this the handler of all three."""
        queries.register(GetUserById, self.get_by_id, after=freshness.written)
        queries.register(GetUsersByEmail, self.get_by_email, after=freshness.searchable)
        queries.register(GetActiveUsers, self.get_active, after=freshness.searchable)

    async def get_by_id(self, query: GetUserById) -> UserReadModel | None:
        """The user, active or not, or None, also for one who was erased."""
        document = await self._store.get(query.user_id)
        if document is None or is_tombstone(document):
            return None
        return UserReadModel.model_validate(document)

    async def get_by_email(self, query: GetUsersByEmail) -> Page[UserReadModel]:
        """A page of the users whose email contains the text; see `elasticsearch/substring.py`."""
        wanted = fragment_query(EMAIL_FRAGMENTS, query.email)
        return await self._page(wanted, query.limit, _position(query.cursor))

    async def get_active(self, query: GetActiveUsers) -> Page[UserReadModel]:
        """A page of the active users.

        Elasticsearch skips no more than 10,000 at a time, so an offset is walked; a cursor costs
        the same wherever it is.
        """
        after = _position(query.cursor)
        remaining = query.offset
        while remaining:
            step = min(remaining, MAX_LIMIT)
            skipped = await self._store.search(
                _ACTIVE, sort=ORDER, limit=step, after=after, positions_only=True
            )
            if len(skipped) < step:
                return Page((), None)
            after = skipped[-1].position
            remaining -= step
        return await self._page(_ACTIVE, query.limit, after)

    async def _page(
        self, wanted: Mapping[str, Any], limit: int, after: Sequence[Any] | None
    ) -> Page[UserReadModel]:
        # One more than asked for: whether there is a next page
        hits = await self._store.search(wanted, sort=ORDER, limit=limit + 1, after=after)
        items = tuple(UserReadModel.model_validate(hit.document) for hit in hits[:limit])
        return Page(items, _cursor(hits[limit - 1].position) if len(hits) > limit else None)


@asynccontextmanager
async def open_queries(settings: Settings) -> AsyncIterator[QueryBus]:
    """A query bus that answers all queries, with connections of its own.

    Raises:
        Fatal: The address in the settings is none. Nothing is sent before the first query, which
            raises Transient when Elasticsearch is down and Fatal when there is no such index.
    """
    async with (
        open_view_store(settings, USER_VIEWS, timeout=_TIMEOUT) as users,
        open_view_store(settings, DAILY_REGISTRATIONS, timeout=_TIMEOUT) as registrations,
    ):
        queries = QueryBus()
        commands = Names(settings.namespace, USERS.name).commands
        UserQueryHandler(users).register_at(
            queries, Freshness(users, commands, settings.partitions)
        )
        RegistrationQueryHandler(registrations).register_at(
            queries, Freshness(registrations, commands, settings.partitions)
        )
        yield queries


async def pages_by_email(
    queries: QueryBus, query: GetUsersByEmail, **waiting: Any
) -> AsyncIterator[Page[UserReadModel]]:
    """The page that the query asks for, and all that follow it.

    `waiting` are the `at_least` and the `timeout` of `QueryBus.execute`.
    """
    while True:
        page: Page[UserReadModel] = await queries.execute(query, **waiting)
        yield page
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


async def all_users_by_email(queries: QueryBus, fragment: str) -> AsyncIterator[UserReadModel]:
    """Every user whose email contains the text, in the order of the pages."""
    async for page in pages_by_email(queries, GetUsersByEmail(fragment, limit=1000)):
        for user in page.items:
            yield user


def _cursor(position: Sequence[Any]) -> str:
    """A place in `ORDER` for the user to hand back."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def _position(cursor: str | None) -> list[Any] | None:
    """The inverse of `_cursor`. Raises QueryError: cursors come from outside."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        position = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        position = None
    if (
        isinstance(position, list)
        and [type(part) for part in position] == [int, str]
        and abs(position[0]) < 2**63
    ):
        return position
    raise QueryError("cursor must be the cursor of a page, as it was given")
