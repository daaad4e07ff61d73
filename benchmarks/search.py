"""How fast users are found by a fragment of their email: the first 50, in the view's order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from agents.user_views import ORDER, USER_VIEWS
from agents.users import USERS
from benchmarks.rig.process import contestant
from benchmarks.rig.result import OURS
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.searched_users import (
    SearchedUsers,
    documents_of,
    open_searched_users,
    time_searches,
)
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from models.queries import GetUsersByEmail
from streams.aggregate import TopicNames
from streams.commands.bulk_sender import BulkSender
from streams.kafka.clients import new_producer, started

if TYPE_CHECKING:
    from benchmarks.peers.pg_trgm import Users

PAGE_SIZE = 50
ON_DISK = "bytes on disk/user"
_CHANGES_PER_S = 2000  # while documents are indexed
_CHANGES_PER_BATCH = 100

_LOWER = {"lower": {"type": "keyword", "normalizer": "lowercase"}}
_open_users_in_shards = partial(open_searched_users, shards=3)
_open_users_for_wildcards = partial(
    open_searched_users,
    index=replace(
        USER_VIEWS.index,
        properties={**USER_VIEWS.index.properties, "email": {"type": "keyword", "fields": _LOWER}},
    ),
)


async def our_query(context: BenchContext) -> Figures:
    """Search with `GetUsersByEmail`, through the query bus."""
    return await _search_by_bus(await context.once(open_searched_users))


async def of_three_shards(context: BenchContext) -> Figures:
    """Search with the same query in an index of three shards."""
    searched = await context.once(_open_users_in_shards)
    one_shard = await context.once(open_searched_users)
    return await _search_by_bus(replace(searched, found=one_shard.found))


async def _search_by_bus(searched: SearchedUsers) -> Figures:
    async def search(fragment: str) -> Sequence[str]:
        page = await searched.queries.execute(GetUsersByEmail(fragment, PAGE_SIZE))
        return [user.id for user in page.items]

    return {**await time_searches(searched, search), ON_DISK: searched.size / searched.users}


async def while_indexing(context: BenchContext) -> Figures:
    """Search with the same query while a view worker projects changes of users."""
    searched = await context.once(open_searched_users)
    settings = searched.settings
    topic = TopicNames.of(settings, USERS.name).events
    log = context.folder / f"{settings.namespace}views.log"
    async with started(new_producer(settings), settings) as producer:
        sender = BulkSender(producer, topic, settings.partitions)
        with contestant(command_line(ROLES["views"]), settings, log) as worker:
            stop = asyncio.Event()
            changing = asyncio.create_task(_send_changes(sender, searched.changes, stop))
            try:
                before = await _indexed(searched)

                async def has_begun() -> bool:
                    worker.check()
                    return await _indexed(searched) >= before + _CHANGES_PER_S

                await wait_until(has_begun, what="the view worker writes")
                figures = await _search_by_bus(searched)
            finally:
                stop.set()
                await changing
    return figures


async def _send_changes(
    sender: BulkSender, changes: Iterator[tuple[bytes, bytes]], stop: asyncio.Event
) -> None:
    """Send events at a constant rate until `stop` is set; catch up after a delay, skip none."""
    begin, sent = time.perf_counter(), 0
    while not stop.is_set():
        for key, value in islice(changes, _CHANGES_PER_BATCH):
            await sender.add(key, value)
        await sender.hand_over()
        sent += _CHANGES_PER_BATCH
        await asyncio.sleep(max(0, begin + sent / _CHANGES_PER_S - time.perf_counter()))
    await sender.flush()


async def _indexed(searched: SearchedUsers) -> int:
    """Return how many documents were ever written to the index."""
    found = await searched.client.indices.stats(index=searched.store.name, metric="indexing")
    return int(found["_all"]["primaries"]["indexing"]["index_total"])


async def wildcard_query(context: BenchContext) -> Figures:
    """Search for the same page with a `wildcard` query."""
    searched = await context.once(open_searched_users)
    with_field = await context.once(_open_users_for_wildcards)

    async def search(fragment: str) -> Sequence[str]:
        hits = await with_field.store.search(_wildcard(fragment), sort=ORDER, limit=PAGE_SIZE + 1)
        return [hit.document["id"] for hit in hits[:PAGE_SIZE]]

    return {**await time_searches(searched, search), ON_DISK: with_field.size / with_field.users}


def _wildcard(fragment: str) -> Mapping[str, Any]:
    """Return the query that most people write."""
    literal = "".join(f"\\{one}" if one in "*?\\" else one for one in fragment.lower())
    return {"wildcard": {"email.lower": {"value": f"*{literal}*"}}}


@asynccontextmanager
async def _open_postgresql_users(context: BenchContext) -> AsyncIterator[Users]:
    from benchmarks.peers.pg_trgm import open_users

    async with open_users(documents_of(context, context.size["users"])) as users:
        yield users


async def trigrams_in_postgresql(context: BenchContext) -> Figures:
    """Search for the same page in PostgreSQL (`peers/pg_trgm.py`)."""
    searched = await context.once(open_searched_users)
    users = await context.once(_open_postgresql_users)
    size = await users.size()

    async def search(fragment: str) -> Sequence[str]:
        return (await users.find(fragment, PAGE_SIZE + 1))[:PAGE_SIZE]

    return {**await time_searches(searched, search), ON_DISK: size / searched.users}


_ABOUT = (
    "Milliseconds at the client for the first 50 users whose email contains the fragment, in the "
    "order of registration and id; one query after the other. The seeded fragments are domains, "
    "beginnings of names, any 3 to 12 characters, any 1 or 2, whole addresses, upper case, and "
    "fragments of no address. Other fragments warm up before: a JVM that has just started takes "
    "five times as long. All contestants must find the same users. The index is filled once, by "
    "the view's own code, and does not change unless a contestant says so."
)
_OURS = Contestant(
    OURS,
    "The query `GetUsersByEmail` through the query bus: a sparse phrase of 3-grams on the "
    "sorted index (`docs/search.md`); the documents that it returns are validated.",
    our_query,
)
_POSTGRESQL = Contestant(
    "PostgreSQL, pg_trgm",
    "ILIKE with ORDER BY and LIMIT on the same users, with a GIN index of trigrams and an "
    "index in the order of the list; vacuumed, analyzed, 512 MB of shared buffers.",
    trigrams_in_postgresql,
)

SEARCH = Benchmark(
    name="search",
    about=f"How fast users are found by a fragment of their email. {_ABOUT}",
    sizes={
        "small": {"users": 20_000, "fragments": 140, "warm-up": 70},
        "full": {"users": 1_000_000, "fragments": 700, "warm-up": 700},
    },
    contestants=(
        _OURS,
        Contestant(
            "cqrs-streams, while indexing",
            "The same, while a view worker writes 2,000 documents/s: changes of 20,000 of the "
            "users, which arrive as events.",
            while_indexing,
        ),
        Contestant(
            "wildcard query",
            "The common way: `*fragment*` on a keyword of the lower-cased address, in an index "
            "that has it beside all other fields, in the same order. The field type `wildcard` is "
            "not part of Elasticsearch's core, and the embedded one has only the core.",
            wildcard_query,
        ),
        _POSTGRESQL,
    ),
    targets=(
        Target("p50 ms", most=3),
        Target("p99 ms", most=10),
        Target("p50 ms", most=1 / 25, to="wildcard query"),
        Target(ON_DISK, most=350),
    ),
    needs=("psycopg",),
)

SEARCH_MANY = Benchmark(
    name="search-many",
    about=f"How fast users are found among twenty times as many. {_ABOUT}",
    sizes={
        "small": {"users": 30_000, "fragments": 140, "warm-up": 70},
        "full": {"users": 20_000_000, "fragments": 700, "warm-up": 700},
    },
    contestants=(
        _OURS,
        Contestant(
            "cqrs-streams, three shards",
            "The same with as many users in an index of three shards. Our workers refuse such an "
            "index: this shows what it would bring.",
            of_three_shards,
        ),
        _POSTGRESQL,
    ),
    targets=(Target("p50 ms", most=3), Target("p99 ms", most=20)),
    needs=("psycopg",),
)
