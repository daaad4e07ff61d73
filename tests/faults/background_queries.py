"""Queries in the background, for users who exist before and do not change."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle
from statistics import quantiles
from typing import Any

from deploy.samples.commands import plan
from deploy.waiting import Turns
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from streams.buses import QueryBus
from streams.concurrency import gather_or_cancel
from tests.faults.outages import Outages
from tests.harness.checks import require

_QUERY_INTERVAL_S = 0.01
_MAX_MATCHES = 1000  # users whose address contains the fragment


def commands_around(
    watched: dict[str, str], seed: int, *, users: int, out_of: int
) -> Iterator[dict[str, Any]]:
    """Yield registrations, then commands of all kinds, none of which changes the watched users.

    Args:
        watched: filled while the registrations are read: email addresses of active users, by id.
        seed: of the commands.
        users: number of watched users.
        out_of: number of registrations.
    """
    planned = plan(sys.maxsize, seed, rejected=0.05, duplicates=0.05)
    registrations = (
        command
        for command, status in planned
        if status == "accepted" and command["type"] == "RegisterUser"
    )
    for number in range(out_of):
        command = next(registrations)
        if number % (out_of // users) == 0:
            watched[command["aggregateId"]] = command["email"]
        yield command
    for command, _ in planned:
        if command["aggregateId"] not in watched:
            yield command


class BackgroundQueries:
    """Runs the three queries side by side, until `done` is set.

    Args:
        queries: executes them.
        users: that every query must find: email addresses by id. They are active.
        page: number of users on a page of the active ones.
        done: ends them.
        outages: repeats queries that fail; without it the first failure ends them all.
    """

    def __init__(
        self,
        queries: QueryBus,
        users: Mapping[str, str],
        page: int,
        done: asyncio.Event,
        outages: Outages | None = None,
    ) -> None:
        self._queries = queries
        self._users = users
        self._page = page
        self._done = done
        self._outages = outages
        self._seconds: list[float] = []
        self.walks = 0
        """Number of times that all active users were read, page by page."""

    @property
    def executed(self) -> int:
        """Number of queries that were executed."""
        return len(self._seconds)

    def percentiles(self) -> tuple[float, float]:
        """Return p50 and p99 of the queries' times, in milliseconds."""
        cuts = quantiles(self._seconds, n=100, method="inclusive")
        return round(1000 * cuts[49], 1), round(1000 * cuts[98], 1)

    async def run(self) -> None:
        """Query until `done` is set; the active users to the last page.

        Raises:
            Failed: a query missed one of the users.
        """
        await gather_or_cancel(self._by_id(), self._by_email(), self._active())

    async def _by_id(self) -> None:
        turns = Turns(_QUERY_INTERVAL_S)
        for user in cycle(self._users):
            if self._done.is_set():
                return
            found = await self._execute(GetUserById(user), turns)
            require(found is not None, f"the user {user} was not found by id")

    async def _by_email(self) -> None:
        turns = Turns(_QUERY_INTERVAL_S)
        for user, email in cycle(self._users.items()):
            if self._done.is_set():
                return
            fragment = email[: email.index("@") + 3].upper()
            page = await self._execute(GetUsersByEmail(fragment, _MAX_MATCHES), turns)
            found = any(one.id == user for one in page.items)
            require(found, f"the user {user} was not found by the address")

    async def _active(self) -> None:
        turns = Turns(_QUERY_INTERVAL_S)
        while not self._done.is_set():
            left = set(self._users)
            query: GetActiveUsers | None = GetActiveUsers(self._page)
            while query is not None:
                page = await self._execute(query, turns)
                left.difference_update(one.id for one in page.items)
                query = page.cursor and GetActiveUsers(self._page, cursor=page.cursor)
            require(not left, f"{len(left)} users were not among the active ones")
            self.walks += 1

    async def _execute(self, query: object, turns: Turns) -> Any:
        await anext(turns)
        begin = time.perf_counter()
        ask = partial(self._queries.execute, query)
        found = await (ask() if self._outages is None else self._outages.through(ask))
        self._seconds.append(time.perf_counter() - begin)
        return found
