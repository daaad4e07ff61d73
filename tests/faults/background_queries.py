"""Queries that go on all the while, about users who were there before and do not change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import cycle
from statistics import quantiles
from typing import Any

from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from streams.buses import QueryBus
from streams.concurrency import gather_or_cancel
from tests.harness.checks import require

_PAUSE = 0.01  # seconds between two queries of a kind
_MATCHES = 1000  # users that one address may be a part of, at most


class Asking:
    """The three queries, side by side. One that fails, or misses a user, ends all of it.

    Args:
        queries: Who answers.
        users: Those asked for, by id, with their addresses. They are active.
        page: How many a page of the active users has.
        done: When to stop.
    """

    def __init__(
        self, queries: QueryBus, users: Mapping[str, str], page: int, done: asyncio.Event
    ) -> None:
        self._queries = queries
        self._users = users
        self._page = page
        self._done = done
        self._seconds: list[float] = []
        self.walks = 0
        """How often all active users were read, page by page."""

    @property
    def answered(self) -> int:
        """How many queries were."""
        return len(self._seconds)

    def percentiles(self) -> tuple[float, float]:
        """p50 and p99 of the queries' times, in milliseconds."""
        cuts = quantiles(self._seconds, n=100, method="inclusive")
        return round(1000 * cuts[49], 1), round(1000 * cuts[98], 1)

    async def run(self) -> None:
        """Ask until all is `done`, and then the active users to the last page."""
        await gather_or_cancel(self._by_id(), self._by_email(), self._walk())

    async def _by_id(self) -> None:
        for user in cycle(self._users):
            if self._done.is_set():
                return
            found = await self._ask(GetUserById(user))
            require(found is not None, f"the user {user} was not found by id")

    async def _by_email(self) -> None:
        for user, email in cycle(self._users.items()):
            if self._done.is_set():
                return
            fragment = email[: email.index("@") + 3].upper()
            page = await self._ask(GetUsersByEmail(fragment, _MATCHES))
            found = any(one.id == user for one in page.items)
            require(found, f"the user {user} was not found by the address")

    async def _walk(self) -> None:
        while not self._done.is_set():
            left = set(self._users)
            query: GetActiveUsers | None = GetActiveUsers(self._page)
            while query is not None:
                page = await self._ask(query)
                left.difference_update(one.id for one in page.items)
                query = page.cursor and GetActiveUsers(self._page, cursor=page.cursor)
            require(not left, f"{len(left)} users were not among the active ones")
            self.walks += 1

    async def _ask(self, query: object) -> Any:
        begin = time.perf_counter()
        answer = await self._queries.execute(query)
        self._seconds.append(time.perf_counter() - begin)
        await asyncio.sleep(_PAUSE)
        return answer
