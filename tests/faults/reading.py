"""Clients that write and then read with the token; each must see its writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice, takewhile
from statistics import quantiles
from typing import Any, Literal

from models.commands import RegisterUser
from models.outcomes import Accepted
from models.queries import GetUserById, GetUsersByEmail
from models.tokens import Token, join
from streams.buses import QueryBus
from streams.commands.client import KafkaCommandBus
from tests.faults.outages import Outages
from tests.harness.checks import require

_QUERY_TIMEOUT_S = 60.0  # also while a killed worker's partitions move

_Way = Literal["by id", "search"]


class Reading:
    """Clients that write and read side by side; each must see its writes."""

    def __init__(
        self,
        commands: KafkaCommandBus,
        queries: QueryBus,
        *,
        clients: int,
        timeout: float = _QUERY_TIMEOUT_S,
        outages: Outages | None = None,
    ) -> None:
        self.users = 0
        self._timeout = timeout
        self._outages = outages
        self._clients = clients
        self._times: dict[_Way, list[float]] = {"by id": [], "search": []}
        self._commands = commands
        self._queries = queries
        self._numbers = count()

    @property
    def pairs(self) -> int:
        """Number of times that something was written and then read."""
        return sum(map(len, self._times.values()))

    def figures(self, when: str) -> dict[str, int]:
        """Return how long it took from the outcome to the result of the query, so far."""
        found = {}
        for way, times in self._times.items():
            cuts = quantiles(times, n=100, method="inclusive")
            found[f"{way}, {when}, p50 ms"] = round(cuts[49] * 1000)
            found[f"{way}, {when}, p99 ms"] = round(cuts[98] * 1000)
        return found

    async def run(self, pairs: int) -> None:
        """Write and read `pairs` more times.

        Raises:
            Failed: a client does not see its write.
        """
        await self._run(islice(self._numbers, pairs))

    async def until(self, done: asyncio.Event) -> None:
        """Write and read until `done` is set.

        Raises:
            Failed: a client does not see its write.
        """
        await self._run(takewhile(lambda _: not done.is_set(), self._numbers))

    @property
    def longest(self) -> float:
        """The longest time from the outcome to the result of the query, in seconds."""
        return max(map(max, filter(None, self._times.values())))

    async def _run(self, numbers: Iterator[int]) -> None:
        clients = [asyncio.create_task(self._client(numbers)) for _ in range(self._clients)]
        try:
            await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            users = [f"reader-{number}-{who}" for who in range(1 + number // 2 % 2)]
            token = join(await asyncio.gather(*map(self._register, users)))
            assert token is not None
            begin = time.monotonic()
            way: _Way = "by id" if number % 2 else "search"
            seen = await self._seen(way, number, users, token)
            self._times[way].append(time.monotonic() - begin)
            require(
                seen == users,
                f"{' and '.join(users)} registered, and {way} with their token finds {seen}",
            )

    async def _register(self, user: str) -> str:
        outcome = await self._commands.dispatch(
            RegisterUser(
                aggregate_id=user,
                email=f"{user}@example.org",
                first_name="Rita",
                last_name="Reader",
                registration_source="api",
            )
        )
        require(isinstance(outcome, Accepted), f"registering {user} was {outcome.status}")
        assert isinstance(outcome, Accepted)
        self.users += 1
        return outcome.token

    async def _seen(self, way: _Way, number: int, users: Sequence[str], token: Token) -> list[str]:
        """Return the users that a query finds."""
        if way == "search":
            page = await self._execute(GetUsersByEmail(f"READER-{number}-"), token)
            return sorted(user.id for user in page.items)
        found = [await self._execute(GetUserById(user), token) for user in users]
        return [user.id for user in found if user is not None]

    async def _execute(self, query: object, token: Token) -> Any:
        ask = partial(self._queries.execute, query, at_least=token, timeout=self._timeout)
        return await (ask() if self._outages is None else self._outages.through(ask))
