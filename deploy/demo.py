"""The demo: everything once, with real servers and workers, and an account that has to add up."""

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

from aiokafka import AIOKafkaConsumer

from agents.client import open_queries
from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.samples.commands import Expected, malformed, plan, tally
from models.errors import Fatal, Transient
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from models.user_view import UserReadModel
from streams.aggregate import TopicNames
from streams.audit.report import Report
from streams.buses import QueryBus
from streams.commands.bulk_sender import BulkSender
from streams.kafka.clients import new_consumer, new_producer
from streams.kafka.topics import partitions_of
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.store import open_view_store

SEED = 2026
COMMANDS = 20_000
MALFORMED = 100
PROBES = 40
SEARCHES = 400

# Seconds that the workers get for any one step.
_PATIENCE = 120


@dataclass
class DemoResult:
    """What the demo did and measured; times in seconds."""

    expected: Expected
    dead: int = 0
    report: Report = field(default_factory=Report)
    decided_per_second: float = 0
    searchable: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    by_id: UserReadModel | None = None
    fragment: str = ""
    by_email: tuple[UserReadModel, ...] = ()
    active: tuple[UserReadModel, ...] = ()

    def check(self) -> None:
        """Hold what was found against what was sent.

        Raises:
            Fatal: something does not add up.
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
    """Send seeded commands to workers that run, wait for the views, search, and verify.

    The topics of ``settings`` have seen no command before.
    """
    names = TopicNames.of(settings, USERS.name)
    async with AsyncExitStack() as resources:
        producer = await resources.enter_async_context(new_producer(settings))
        consumer = await resources.enter_async_context(new_consumer(settings))
        queries = await resources.enter_async_context(open_queries(settings))
        consumer.assign(partitions_of(settings, names.outcomes))

        # A probe is a registration like any other; what it adds is expected, too.
        counted = tally(plan(COMMANDS - MALFORMED - PROBES, SEED))
        result = DemoResult(
            Expected(
                counted.commands + PROBES,
                counted.accepted + PROBES,
                counted.rejected,
                counted.duplicate,
                counted.documents + PROBES,
            )
        )
        result.dead = MALFORMED
        counting = asyncio.create_task(_decided_per_second(consumer, COMMANDS - PROBES, progress))
        sender = BulkSender(producer, names.commands, settings.partitions)
        for key, value in _records():
            await sender.add(key, value)
        await sender.flush()
        result.decided_per_second = await asyncio.wait_for(counting, _PATIENCE)
        await _projected(settings, counted.documents, progress)
        result.searchable = await _probe(sender, queries, progress)
        result.report = await verify_users(settings, progress=progress)
        await _search(queries, result, progress)
    return result


def _records() -> Iterator[tuple[bytes, bytes]]:
    """Key and value of all records but the probes, the malformed ones strewn in."""
    bad = malformed(MALFORMED, SEED)
    good = COMMANDS - MALFORMED - PROBES
    for number, (command, _) in enumerate(plan(good, SEED)):
        yield command["aggregateId"].encode(), json.dumps(command).encode()
        if number % (good // MALFORMED) == 0:
            yield from islice(bad, 1)
    yield from bad


async def _decided_per_second(
    consumer: AIOKafkaConsumer, commands: int, progress: ProgressCallback
) -> float:
    """Wait for so many outcomes; their rate by the times of their records."""
    times: list[int] = []
    while len(times) < commands:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            times.extend(record.timestamp for record in records)
        progress("Deciding commands", len(times), commands)
    return 1000 * commands / max(1, max(times) - min(times))


async def _projected(settings: Settings, documents: int, progress: ProgressCallback) -> None:
    """Wait until the view has so many documents."""
    deadline = time.monotonic() + _PATIENCE
    async with open_view_store(settings, USER_VIEWS, timeout=10) as store:
        count = 0
        while count < documents:
            with suppress(Fatal):  # the view worker may still be making the index
                count = await store.count()
                progress("Projecting events", count, documents)
            if time.monotonic() > deadline:
                raise Transient(f"the view did not follow within {_PATIENCE} s")
            await asyncio.sleep(0.05)


async def _probe(sender: BulkSender, queries: QueryBus, progress: ProgressCallback) -> list[float]:
    """Seconds from the sending of a registration until a search finds the user."""
    found: list[float] = []

    async def probe(number: int) -> None:
        # Spread over some refreshes of the index, so that the waits for the next one vary.
        await asyncio.sleep(4 * number / PROBES)
        user = f"probe-{number}-{uuid4().hex[:12]}"
        command = {
            "type": "RegisterUser",
            "aggregateId": user,
            "email": f"{user}@example.org",
            "firstName": "Probe",
            "lastName": str(number),
            "registrationSource": "demo",
        }
        begin = time.perf_counter()
        await sender.add(user.encode(), json.dumps(command).encode())
        await sender.hand_over()
        await _until_found(queries, user)
        found.append(time.perf_counter() - begin)
        progress("Sending probes and searching for them", len(found), PROBES)

    await asyncio.gather(*map(probe, range(PROBES)))
    return found


async def _until_found(queries: QueryBus, fragment: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not (await queries.execute(GetUsersByEmail(fragment, limit=1))).items:
        if time.monotonic() > deadline:
            raise Transient(f"a new user did not become searchable within {_PATIENCE} s")
        await asyncio.sleep(0.01)


async def _search(queries: QueryBus, result: DemoResult, progress: ProgressCallback) -> None:
    """The three queries, then many searches for fragments of addresses that exist."""
    choice = random.Random(SEED)
    emails = [
        (command["aggregateId"], command["email"])
        for command, status in plan(COMMANDS - MALFORMED - PROBES, SEED)
        if status == "accepted" and command["type"] == "RegisterUser"
    ]
    user, email = choice.choice(emails)
    result.by_id = await queries.execute(GetUserById(user))
    result.fragment = email.split("@")[0][:6].upper()
    result.by_email = (await queries.execute(GetUsersByEmail(result.fragment, limit=5))).items
    result.active = (await queries.execute(GetActiveUsers(limit=5))).items
    for number in range(SEARCHES):
        _, email = choice.choice(emails)
        start = choice.randrange(len(email) - 3)
        fragment = email[start : start + choice.randint(1, 12)]
        begin = time.perf_counter()
        page = await queries.execute(GetUsersByEmail(fragment))
        result.searches.append(time.perf_counter() - begin)
        folded = [item.email.casefold() for item in page.items]
        if not all(fragment.casefold() in one for one in folded):
            raise Fatal("a search found an address without the fragment")
        progress("Searching", number + 1, SEARCHES)


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[98]
