"""A second view beside the first: its own index, worker and rebuild; what it counts is right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timezone
from typing import Any

from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from agents.client import open_queries
from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from agents.views import VIEWS
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import NoSuchView, Transient
from models.events import USER_EVENTS, UserEvent, UserRegistered
from models.messages import EventRecord
from models.queries import GetActiveUsers, GetDailyRegistrations, GetUserById, GetUsersByEmail
from models.user_view import format_milliseconds
from models.wire import encode, parse_time
from streams.elasticsearch.connection import connect
from streams.encryption.events import read_event
from streams.kafka.clients import admin_client, new_producer, started
from streams.kafka.dead_letters import VIEW
from streams.kafka.log_reader import open_logs
from streams.progress import no_progress
from streams.views.projection import View
from streams.views.reader import open_view
from streams.views.rebuild import rebuild
from streams.views.status import status_of
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.read_side import (
    REFUSED_UPDATE,
    encoded,
    record,
    registered,
    send_events,
)
from tests.harness.traffic import Record, Traffic, open_traffic, records_of

NEARLY_MIDNIGHT = datetime(2026, 1, 1, 23, 59, 40, tzinfo=timezone.utc)
EVER = GetDailyRegistrations(date.min, date.max)
SOURCES = ("web", "[bold]", "#", "a/b", "例" * 200)


def commands(count: int, seed: int) -> Iterator[Record]:
    """Commands of two days, whose users come from odd places."""
    for command in generate(count, seed, start=NEARLY_MIDNIGHT):
        if command["type"] == "RegisterUser":
            source = SOURCES[int(command["aggregateId"][-1], 16) % len(SOURCES)]
            command = {**command, "registrationSource": source}
        yield from records_of([command])


@asynccontextmanager
async def registering(deployed: Deployment, seed: int = 1) -> AsyncIterator[Traffic]:
    """Many commands at first, and some all the while."""
    async with open_traffic(deployed, commands(1_000_000, seed), rate=200.0) as traffic:
        traffic.burst(3000)
        yield traffic
        await traffic.finish()


async def counted(deployed: Deployment) -> dict[tuple[str, str], int]:
    """What the query says."""
    async with open_queries(deployed.settings) as queries:
        found = await queries.execute(EVER)
    assert [(one.day, one.source) for one in found] == sorted(
        (one.day, one.source) for one in found
    )
    return {(one.day.isoformat(), one.source): one.registrations for one in found}


async def events(deployed: Deployment) -> list[EventRecord[UserEvent]]:
    """All there are."""
    numbers = range(deployed.settings.partitions)
    partitions = [TopicPartition(deployed.names.events, number) for number in numbers]
    async with open_logs(deployed.settings, partitions) as logs:
        ends = await logs.end_offsets(partitions)
        return [
            read_event(one, USER_EVENTS, None)
            for tp, end in ends.items()
            async for records in logs.read(tp, 0, end)
            for one in records
        ]


async def expected(deployed: Deployment) -> dict[tuple[str, str], int]:
    """What the event topic says."""
    return Counter(
        (one.timestamp.date().isoformat(), one.event.registration_source)
        for one in await events(deployed)
        if isinstance(one.event, UserRegistered)
    )


async def has_all(deployed: Deployment, view: View[Any] = DAILY_REGISTRATIONS) -> None:
    """People read the view; each index has all events, and its documents add up to them."""

    async def complete() -> bool:
        try:
            found = await status_of(deployed.settings, view, check=True, progress=no_progress)
        except Transient:  # the index is just being made
            return False
        assert all(one.complete is not False for one in found)
        shown = any(one.state == "serving" for one in found)
        return shown and all(one.behind == 0 and one.complete for one in found)

    await wait_until(complete, timeout=60)


async def projected(deployed: Deployment) -> int:
    """How far the index is that people read."""
    async with open_view(deployed.settings, DAILY_REGISTRATIONS, timeout=30) as store:
        try:
            found = (await store.checkpoints(range(deployed.settings.partitions))).checkpoints
        except NoSuchView:
            return 0
    return sum(one.position for one in found.values())


async def test_counts_are_right_after_kills_under_load(deploy: Deploy) -> None:
    deployed = deploy("commands", "registrations", partitions=3)
    (worker,) = deployed.of("registrations")
    async with registering(deployed):
        for _ in range(2):
            before = await projected(deployed)

            async def goes_on(before: int = before) -> bool:
                return await projected(deployed) > before + 100

            await wait_until(goes_on, timeout=60)
            worker.kill()
            worker.start()
    await has_all(deployed)
    found = await counted(deployed)
    assert found == await expected(deployed)
    assert {source for _, source in found} == set(SOURCES)
    assert len({day for day, _ in found}) == 2


async def test_one_view_is_rebuilt_beside_the_other(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", "registrations")
    async with registering(deployed):

        async def begun() -> bool:
            return await projected(deployed) > 0

        await wait_until(begun, timeout=60)
        state = await rebuild(
            deployed.settings, DAILY_REGISTRATIONS, timeout=60, progress=no_progress
        )
        assert state.number == 2
        before = await projected(deployed)

        async def goes_on() -> bool:
            return await projected(deployed) > before + 100

        await wait_until(goes_on)
    for view in VIEWS.values():
        await has_all(deployed, view)
    assert (await verify_users(deployed.settings)).first_violation is None
    assert await counted(deployed) == await expected(deployed)
    users = await status_of(deployed.settings, USER_VIEWS, check=False, progress=no_progress)
    assert [one.state for one in users] == ["serving"]
    for worker in deployed.workers:
        assert worker.is_running
    await see_the_commands(deployed)


async def see_the_commands(deployed: Deployment) -> None:
    """The same from the command line."""
    settings = deployed.settings
    name = DAILY_REGISTRATIONS.name
    checked = cqrs(settings, "views", "status", name, "--check", "--json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [one["complete"] for one in json.loads(checked.stdout)] == [True, True]
    assert f"{name}-v1 again" in cqrs(settings, "views", "rollback", name).stdout
    assert f"{name}-v2" in cqrs(settings, "views", "prune", name, "--yes").stdout

    days = ("--from", "2026-01-01", "--to", "2026-01-01")
    shown = cqrs(settings, "registrations", *days, "--source", "[bold]", "--json")
    assert shown.stderr == ""
    number = (await expected(deployed))["2026-01-01", "[bold]"]
    assert json.loads(shown.stdout) == [
        {"day": "2026-01-01", "source": "[bold]", "registrations": number}
    ]
    table = cqrs(settings, "registrations", *days, "-o", "table").stdout
    assert "[bold]" in table
    total = sum(n for (day, _), n in (await expected(deployed)).items() if day == "2026-01-01")
    assert f"{total:,} registrations from 2026-01-01 to 2026-01-01" in table
    # not even one today: the default
    assert cqrs(settings, "registrations").stdout == ""


def test_an_invalid_query_is_an_error_of_one_line(deploy: Deploy) -> None:
    settings = deploy().settings
    done = cqrs(settings, "registrations", "--from", "2026-01-02", "--to", "2026-01-01")
    assert (done.returncode, done.stderr) == (2, "cqrs: --from must not be after --to\n")
    done = cqrs(settings, "registrations", "--to", "0001-01-01")
    assert done.returncode == 75
    assert f"no index {settings.namespace}daily-registrations" in done.stderr
    done = cqrs(settings, "views", "status", "daily-registrations")
    assert "a view worker creates it (cqrs worker registrations)" in " ".join(done.stdout.split())


TIMES = (
    "0001-01-01T00:00:00.000Z",
    "1969-05-15T12:00:00.000Z",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00.000Z",
    "1970-01-21T15:42:03.123Z",
    "1970-08-20T12:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
)


async def test_times_at_the_ends_of_the_calendar_and_around_1970(deploy: Deploy) -> None:
    """Every query returns them as they were, and in their order."""
    deployed = deploy("views", "registrations", partitions=1)
    event = registered("anna@example.org")
    await send_events(
        deployed,
        *(
            (
                f"u{n}",
                encode(replace(record(f"u{n}", 1, event), timestamp=parse_time(at)).to_wire()),
            )
            for n, at in enumerate(TIMES)
        ),
    )
    for view in VIEWS.values():
        await has_all(deployed, view)
    days = Counter(at[:10] for at in TIMES)
    assert await counted(deployed) == {(day, "web"): number for day, number in days.items()}
    async with open_queries(deployed.settings) as queries:
        for day in map(date.fromisoformat, days):
            (one,) = await queries.execute(GetDailyRegistrations(day, day))
            assert one.day == day
        found, cursor = [], None
        for _ in TIMES:
            page = await queries.execute(GetActiveUsers(limit=1, cursor=cursor))
            found += page.items
            cursor = page.cursor
        assert (cursor, [user.id for user in found]) == (None, [f"u{n}" for n in range(len(TIMES))])
        by_email = await queries.execute(GetUsersByEmail(event.email))
        assert list(by_email.items) == found
        for user, at in zip(found, TIMES, strict=True):
            assert format_milliseconds(user.registered_at) == at
            assert format_milliseconds(user.last_updated) == at
            assert await queries.execute(GetUserById(user.id)) == user


async def test_a_dead_letter_of_one_view_does_not_affect_the_other(deploy: Deploy) -> None:
    """A source longer than any keyword, which only an event written by hand can have."""
    deployed = deploy("views", "registrations", partitions=1)
    letters = TopicPartition(deployed.names.dead_views, 0)
    event = registered("anna@example.org")
    immense = UserRegistered(event.email, event.first_name, event.last_name, "x" * 40_000)
    async with (
        started(new_producer(deployed.settings), deployed.settings) as producer,
        open_logs(deployed.settings, [letters]) as logs,
        open_queries(deployed.settings) as queries,
    ):
        for key, one in (("anna", immense), ("bert", event)):
            value = encode(record(key, 1, one).to_wire())
            await producer.send_and_wait(deployed.names.events, value, key.encode(), 0)
        for view in VIEWS.values():
            await has_all(deployed, view)
        ends = await logs.end_offsets([letters])
        found = [one async for some in logs.read(letters, 0, ends[letters]) for one in some]
        assert [(one.key, dict(one.headers)[VIEW]) for one in found] == [
            (b"anna", b"daily-registrations")
        ]
        assert await queries.execute(GetUserById("anna")) is not None
    assert await counted(deployed) == {("2026-11-23", "web"): 1}


async def test_verify_reads_the_dead_letters_of_its_own_view(deploy: Deploy) -> None:
    """And a letter explains a document that was refused, never one that is not there."""
    deployed = deploy("views", partitions=1)
    letters = TopicPartition(deployed.names.dead_views, 0)
    await send_events(
        deployed,
        ("anna", encoded(deployed, "anna", 1, registered("anna@example.org"))),
        ("anna", encoded(deployed, "anna", 2, REFUSED_UPDATE)),
    )
    await has_all(deployed, USER_VIEWS)
    async with (
        open_view(deployed.settings, USER_VIEWS, timeout=30) as store,
        connect(deployed.settings, timeout=30) as client,
        started(new_producer(deployed.settings), deployed.settings) as producer,
        admin_client(deployed.settings) as admin,
    ):

        async def first_violation(view: View[Any], known: int) -> str | None:
            """Of I4, after a dead letter of this view."""
            await producer.send_and_wait(
                letters.topic, b"{}", b"anna", 0, headers=[(VIEW, view.name.encode())]
            )
            report = await verify_users(deployed.settings)
            assert report.known_missing == known
            return report.findings["I4"].first

        await admin.delete_records({letters: RecordsToDelete(-1)})  # all
        refused = "the document anna was refused, and no dead letter of the view says so"
        assert await first_violation(DAILY_REGISTRATIONS, 1) == refused
        assert await first_violation(USER_VIEWS, 1) is None
        await client.delete(index=(await store.checkpoints([0])).name, id="anna", refresh=True)
        assert await first_violation(USER_VIEWS, 0) == "anna has 2 events and no document"
