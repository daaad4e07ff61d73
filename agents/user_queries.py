"""The handlers of the queries about users: they read the view `user-views`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from agents.user_views import EMAIL_FRAGMENTS, ORDER
from models.errors import QueryError
from models.queries import MAX_LIMIT, GetActiveUsers, GetUserById, GetUsersByEmail, Page
from models.user_view import UserReadModel, is_tombstone
from streams.buses import QueryBus
from streams.elasticsearch.substring import fragment_query
from streams.views.read_your_writes import ReadYourWrites
from streams.views.reader import ViewReader

_ACTIVE: Mapping[str, Any] = {"term": {"isActive": True}}


class UserQueryHandler:
    """The handlers of the three queries.

    Lists are sorted by the time of registration, users of the same millisecond by id. That order
    never changes: following the cursors returns each user who matches all the time once, and any
    other at most once. Whoever registers meanwhile may come before the cursor, for the time is what
    the command says; `GetNewUsers` (`agents/new_users.py`) misses nobody.

    `GetUserById` returns a document as soon as it is written; lists contain it within a second.
    With a token, all three wait for its write.
    """

    def __init__(self, view: ViewReader) -> None:
        self._view = view

    def register_at(self, queries: QueryBus, waiting: ReadYourWrites) -> None:
        """Register the handlers of all three at the bus."""
        queries.register(GetUserById, self.get_by_id, after=waiting.once_projected)
        queries.register(GetUsersByEmail, self.get_by_email, after=waiting.once_searchable)
        queries.register(GetActiveUsers, self.get_active, after=waiting.once_searchable)

    async def get_by_id(self, query: GetUserById) -> UserReadModel | None:
        """Return the user, active or not; None if there is none, or the user was erased."""
        document = await self._view.get(query.user_id)
        if document is None or is_tombstone(document):
            return None
        return UserReadModel.model_validate(document)

    async def get_by_email(self, query: GetUsersByEmail) -> Page[UserReadModel]:
        """Return a page of users whose email contains the text (`elasticsearch/substring.py`)."""
        wanted = fragment_query(EMAIL_FRAGMENTS, query.email)
        return await self._page(wanted, query.limit, _position(query.cursor))

    async def get_active(self, query: GetActiveUsers) -> Page[UserReadModel]:
        """Return a page of the active users.

        Elasticsearch skips at most 10,000 documents at a time, so an offset is reached in steps; a
        cursor costs the same wherever it is.
        """
        after = _position(query.cursor)
        remaining = query.offset
        while remaining:
            step = min(remaining, MAX_LIMIT)
            skipped = await self._view.search(
                _ACTIVE, sort=ORDER, limit=step, after=after, sort_values_only=True
            )
            if len(skipped) < step:
                return Page((), None)
            after = skipped[-1].sort_values
            remaining -= step
        return await self._page(_ACTIVE, query.limit, after)

    async def _page(
        self, wanted: Mapping[str, Any], limit: int, after: Sequence[Any] | None
    ) -> Page[UserReadModel]:
        # One more than asked for, to see whether there is a next page
        hits = await self._view.search(wanted, sort=ORDER, limit=limit + 1, after=after)
        items = tuple(UserReadModel.model_validate(hit.document) for hit in hits[:limit])
        return Page(
            items, encode_cursor(hits[limit - 1].sort_values) if len(hits) > limit else None
        )


def encode_cursor(position: Sequence[Any]) -> str:
    """Encode a position as text that a client can pass back."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def _position(cursor: str | None) -> list[Any] | None:
    """Decode a cursor, which comes from outside. Raises QueryError if it is none."""
    if cursor is None:
        return None
    position = decode_cursor(cursor)
    if (
        isinstance(position, list)
        and [type(part) for part in position] == [int, str]
        and abs(position[0]) < 2**63
    ):
        return position
    raise no_cursor()


def decode_cursor(cursor: str) -> Any:
    """Decode what `encode_cursor` returned, or anything else; None if it is nothing of the kind."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        return None


def no_cursor() -> QueryError:
    """Build the error for a text that is no cursor of this query."""
    return QueryError("cursor must be the cursor of a page, as it was given")
