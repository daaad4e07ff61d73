"""V1: a client that writes and then reads with the token sees its write."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from statistics import quantiles
from typing import Literal

from agents.client import open_commands, open_queries
from deploy.samples.commands import generate
from models.commands import RegisterUser
from models.outcomes import Accepted
from models.queries import GetUserById, GetUsersByEmail
from models.tokens import Token, join
from streams.buses import QueryBus
from streams.commands.client import KafkaCommandBus
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import open_view_positions

_CLIENTS = 8
_RATE = 200.0  # commands per second of others
_QUERY_TIMEOUT_S = 60.0  # also while a killed worker's partitions move

_Way = Literal["by id", "search"]


async def read_what_was_written(run: Run) -> None:
    """Read written users while view workers are killed."""
    pairs, kills = run.pick((500, 2), (10_000, 20))
    await write_and_read(run, pairs=pairs, kills=kills)


async def write_and_read(run: Run, *, pairs: int, kills: int) -> None:
    """Register users and look for each at once, by id and by a fragment of the email.

    Half of the time a client registers two and gives the query both tokens as one. Other commands
    keep coming, and now and then a view worker is killed.
    """
    deployed = await run.deploy("commands", "views", "views", partitions=4)
    stream = generate(sys.maxsize, run.seed, rejected=0.05, duplicates=0.05)
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_view_positions(deployed, run.stack) as view,
        open_commands(deployed.client) as commands,
        open_queries(deployed.client) as queries,
    ):
        await traffic.until_deciding()
        await view.catch_up()
        reading = Reading(commands, queries, clients=_CLIENTS)
        for part in range(kills + 1):
            run.say(reading.pairs, pairs)
            await reading.run(pairs * (part + 1) // (kills + 1) - reading.pairs)
            if part == 0:
                run.result.figures |= reading.figures("before any kill")
            if part < kills:
                victim = run.rng.choice(deployed.of("views"))
                victim.kill()
                victim.start()
                run.result.faults += 1
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent + reading.users)
    run.result.figures |= {
        "pairs": reading.pairs,
        "stale answers": 0,  # the first one would have ended it
        **reading.figures("with kills"),
    }


class Reading:
    """Clients that write and read side by side; each must see its writes."""

    def __init__(self, commands: KafkaCommandBus, queries: QueryBus, *, clients: int) -> None:
        self.users = 0
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
        numbers = islice(self._numbers, pairs)
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
            query = GetUsersByEmail(f"READER-{number}-")
            page = await self._queries.execute(query, at_least=token, timeout=_QUERY_TIMEOUT_S)
            return sorted(user.id for user in page.items)
        found = [
            await self._queries.execute(GetUserById(user), at_least=token, timeout=_QUERY_TIMEOUT_S)
            for user in users
        ]
        return [user.id for user in found if user is not None]


V1 = Scenario("V1", "writing, then reading with the token", read_what_was_written)
