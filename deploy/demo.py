"""The demo: run everything once with real servers and workers, and check all numbers."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from statistics import quantiles
from uuid import uuid4

import async_timeout
from aiokafka import AIOKafkaConsumer

from agents.client import open_commands, open_queries
from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.samples.commands import Expected, malformed, plan, tally
from models.commands import RegisterUser
from models.errors import Fatal, Transient
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from models.user_view import UserReadModel
from streams.aggregate import TopicNames
from streams.audit.report import Report
from streams.buses import QueryBus
from streams.commands.bulk_sender import BulkSender
from streams.commands.client import KafkaCommandBus
from streams.kafka.clients import new_consumer, new_producer
from streams.kafka.topics import partitions_of
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.reader import open_view

SEED = 2026
COMMANDS = 20_000
MALFORMED = 100
STEADY = 200  # commands that come one by one after the others
SEARCHES = 400

_STEADY_PER_SECOND = 50
_STEP_TIMEOUT_S = 120  # of the workers, for any one step


@dataclass
class DemoResult:
    """What the demo expected, found and measured; times in seconds."""

    expected: Expected
    dead: int = 0
    report: Report = field(default_factory=Report)
    decided_per_second: float = 0
    outcomes: list[float] = field(default_factory=list)
    searchable: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    by_id: UserReadModel | None = None
    fragment: str = ""
    by_email: tuple[UserReadModel, ...] = ()
    active: tuple[UserReadModel, ...] = ()

    def check(self) -> None:
        """Check that the report has the numbers that the sent commands have to lead to.

        Raises:
            Fatal: an invariant is broken, or a number differs.
        """
        report, expected = self.report, self.expected
        if report.first_violation is not None:
            raise Fatal(f"an invariant is broken: {report.first_violation}")
        for name, found, wanted in (
            ("commands", report.commands, expected.commands + self.dead),
            ("accepted", report.accepted, expected.accepted),
            ("rejected", report.rejected, expected.rejected),
            ("duplicate", report.duplicate, expected.duplicate),
            ("dead-lettered", report.dead, self.dead),
            ("events", report.events, expected.events),
            ("documents", report.documents, expected.documents),
        ):
            if found != wanted:
                raise Fatal(f"it does not add up: {found} {name}, {wanted} were expected")


async def run_demo(settings: Settings, progress: ProgressCallback) -> DemoResult:
    """Send seeded commands to running workers, wait for the view, search, and verify.

    The topics of ``settings`` must be new: without any command.
    """
    names = TopicNames.of(settings, USERS.name)
    async with AsyncExitStack() as resources:
        producer = await resources.enter_async_context(new_producer(settings))
        consumer = await resources.enter_async_context(new_consumer(settings))
        queries = await resources.enter_async_context(open_queries(settings))
        consumer.assign(partitions_of(settings, names.outcomes))

        counted = tally(plan(COMMANDS - MALFORMED - STEADY, SEED))
        result = DemoResult(
            Expected(
                counted.commands + STEADY,
                counted.accepted + STEADY,
                counted.rejected,
                counted.duplicate,
                counted.documents + STEADY,
            )
        )
        result.dead = MALFORMED
        counting = asyncio.create_task(_decided_per_second(consumer, COMMANDS - STEADY, progress))
        sender = BulkSender(producer, names.commands, settings.partitions)
        for key, value in _records():
            await sender.add(key, value)
        await sender.flush()
        async with async_timeout.timeout(_STEP_TIMEOUT_S):
            result.decided_per_second = await counting
        await _wait_until_projected(settings, counted.documents, progress)
        commands = await resources.enter_async_context(open_commands(settings))
        await _register_steadily(commands, queries, result, progress)
        result.report = await verify_users(settings, progress=progress)
        await _search(queries, result, progress)
    return result


def _records() -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of all records of the burst, with malformed ones in between."""
    bad = malformed(MALFORMED, SEED)
    good = COMMANDS - MALFORMED - STEADY
    for number, (command, _) in enumerate(plan(good, SEED)):
        yield command["aggregateId"].encode(), json.dumps(command).encode()
        if number % (good // MALFORMED) == 0:
            yield from islice(bad, 1)
    yield from bad


async def _decided_per_second(
    consumer: AIOKafkaConsumer, commands: int, progress: ProgressCallback
) -> float:
    """Wait for this number of outcomes, and return their rate by their record timestamps."""
    times: list[int] = []
    while len(times) < commands:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            times.extend(record.timestamp for record in records)
        progress("Deciding commands", len(times), commands)
    return 1000 * commands / max(1, max(times) - min(times))


async def _wait_until_projected(
    settings: Settings, documents: int, progress: ProgressCallback
) -> None:
    """Wait until the view contains this number of documents."""
    deadline = time.monotonic() + _STEP_TIMEOUT_S
    async with open_view(settings, USER_VIEWS, timeout=10) as view:
        count = 0
        while count < documents:
            with suppress(Fatal):  # the view worker may not have created the index yet
                count = await view.count()
                progress("Projecting events", count, documents)
            if time.monotonic() > deadline:
                raise Transient(f"the view was not complete within {_STEP_TIMEOUT_S} s")
            await asyncio.sleep(0.05)


async def _register_steadily(
    commands: KafkaCommandBus, queries: QueryBus, result: DemoResult, progress: ProgressCallback
) -> None:
    """Register users at a steady pace, as they come in the daily life of a system.

    For each one the result gets the seconds until its outcome is there, and until a search with the
    token of that outcome has found it.
    """

    async def register(number: int) -> None:
        await asyncio.sleep(number / _STEADY_PER_SECOND)
        user = f"steady-{number}-{uuid4().hex[:12]}"
        begin = time.perf_counter()
        outcome = await commands.dispatch(
            RegisterUser(
                aggregate_id=user,
                email=f"{user}@example.org",
                first_name="Steady",
                last_name=str(number),
                registration_source="demo",
            )
        )
        result.outcomes.append(time.perf_counter() - begin)
        search = GetUsersByEmail(user, limit=1)
        found = await queries.execute(search, at_least=outcome.token, timeout=_STEP_TIMEOUT_S)
        result.searchable.append(time.perf_counter() - begin)
        if [one.id for one in found.items] != [user]:
            raise Fatal("a search with the token of an outcome did not find the user")
        progress("Registering users at a steady pace", len(result.searchable), STEADY)

    async with async_timeout.timeout(_STEP_TIMEOUT_S):
        await asyncio.gather(*map(register, range(STEADY)))


async def _search(queries: QueryBus, result: DemoResult, progress: ProgressCallback) -> None:
    """Run the three queries, then many searches for fragments of existing addresses."""
    rng = random.Random(SEED)
    emails = [
        (command["aggregateId"], command["email"])
        for command, status in plan(COMMANDS - MALFORMED - STEADY, SEED)
        if status == "accepted" and command["type"] == "RegisterUser"
    ]
    user, email = rng.choice(emails)
    result.by_id = await queries.execute(GetUserById(user))
    result.fragment = email.split("@")[0][:6].upper()
    result.by_email = (await queries.execute(GetUsersByEmail(result.fragment, limit=5))).items
    result.active = (await queries.execute(GetActiveUsers(limit=5))).items
    for number in range(SEARCHES):
        _, email = rng.choice(emails)
        start = rng.randrange(len(email) - 3)
        fragment = email[start : start + rng.randint(1, 12)]
        begin = time.perf_counter()
        page = await queries.execute(GetUsersByEmail(fragment))
        result.searches.append(time.perf_counter() - begin)
        folded = [item.email.casefold() for item in page.items]
        if not all(fragment.casefold() in one for one in folded):
            raise Fatal("a search found an address without the fragment")
        progress("Searching", number + 1, SEARCHES)


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[98]
