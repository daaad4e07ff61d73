"""How fast users are found by a fragment of their email: the first 50, in the view's order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from elasticsearch import AsyncElasticsearch

from agents.user_queries import UserQueryHandler
from agents.user_views import ORDER, USER_VIEWS
from agents.users import USERS
from benchmarks.rig.backlog import new_deployment
from benchmarks.rig.indices import TIMEOUT, until_merged
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures, percentile
from benchmarks.rig.sample_users import changes, registrations
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from models.errors import Fatal
from models.queries import GetUsersByEmail
from models.user_view import project
from streams.aggregate import TopicNames
from streams.buses import QueryBus
from streams.commands.bulk_sender import BulkSender
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import Document
from streams.kafka.clients import new_producer, started
from streams.settings import Settings
from streams.views.indices import ViewIndices
from streams.views.read_your_writes import ReadYourWrites
from streams.views.store import ViewStore

if TYPE_CHECKING:
    from benchmarks.peers.pg_trgm import Users

PAGE = 50
ON_DISK = "bytes on disk/user"
MANY = "cqrs-streams, many users"
KINDS = ("domain", "name", "3-12 characters", "1-2 characters", "full", "upper case", "absent")
_CHANGES = 2000  # documents/s while documents are indexed
_BATCH = 100  # of these are sent together
_CHANGED = 20_000  # users, in turns
_LOADING = 4  # requests at a time
_CHUNK = 2000  # documents

Ask = Callable[[str], Awaitable[Sequence[str]]]
"""From a fragment to the ids of the first page."""


_LOWER = {"lower": {"type": "keyword", "normalizer": "lowercase"}}  # what wildcard queries read
_INDEX = replace(
    USER_VIEWS.index,
    properties={**USER_VIEWS.index.properties, "email": {"type": "keyword", "fields": _LOWER}},
)


@dataclass(frozen=True)
class _Searched:
    """The index, what is looked for, and what was found by who asked first."""

    settings: Settings
    client: AsyncElasticsearch
    store: ViewStore
    users: int
    size: int  # bytes on disk
    queries: QueryBus
    warm_up: Sequence[tuple[str, str]]
    fragments: Sequence[tuple[str, str]]
    changes: Iterator[tuple[bytes, bytes]]
    found: dict[str, Sequence[str]]


def make_fragments(
    addresses: Sequence[str], count: int, chance: random.Random
) -> list[tuple[str, str]]:
    """Kinds and fragments: what people type, and what is hard."""

    def one(kind: str) -> str:
        address = chance.choice(addresses)
        name, _, domain = address.partition("@")
        length = {"1-2 characters": chance.randint(1, 2)}.get(kind, chance.randint(3, 12))
        start = chance.randrange(max(1, len(address) - length))
        return {
            "domain": "@" + domain,
            "name": name[: chance.randint(3, 6)],
            "full": address,
            "upper case": address[start : start + length].upper(),
            "absent": address[start : start + length] + "zzq",
        }.get(kind, address[start : start + length])

    return [(kind, one(kind)) for kind in islice(cycle(KINDS), count)]


def wildcard(fragment: str) -> Mapping[str, Any]:
    """What most people write."""
    literal = "".join(f"\\{one}" if one in "*?\\" else one for one in fragment.lower())
    return {"wildcard": {"email.lower": {"value": f"*{literal}*"}}}


def _documents(ground: BenchContext, users: int) -> Iterator[Document]:
    return (project(None, event) for event in registrations(users, ground.seed))


@asynccontextmanager
async def _searched(ground: BenchContext, number: str = "users") -> AsyncIterator[_Searched]:
    """An index with all users, written as the view worker writes them."""
    users = ground.size[number]
    settings, names = await new_deployment(ground)
    index = replace(_INDEX, alias=settings.namespace + _INDEX.alias)
    async with connect(settings, timeout=TIMEOUT) as client:
        # of our definition, so that a view worker brings it up to date
        indices = ViewIndices(client, index, USER_VIEWS.definition)
        await indices.create(1, {}, followed=True)
        store = ViewStore(client, index, name=f"{index.alias}-v1")
        addresses = await _load(store, _documents(ground, users))
        await until_merged(client, store.name)
        stats = await client.indices.stats(index=store.name, metric="store")
        size = int(stats["_all"]["primaries"]["store"]["size_in_bytes"])
        queries = QueryBus()
        freshness = ReadYourWrites(store, names.commands, settings.partitions)
        UserQueryHandler(store).register_at(queries, freshness)
        chance = random.Random(ground.seed)
        warm_up = make_fragments(addresses, ground.size["warm-up"], chance)
        fragments = make_fragments(addresses, ground.size["fragments"], chance)
        changed = changes(min(_CHANGED, len(addresses)), ground.seed)
        yield _Searched(
            settings, client, store, users, size, queries, warm_up, fragments, changed, {}
        )


_searched_of_many = partial(_searched, number="many users")


async def _load(store: ViewStore, documents: Iterator[Document]) -> list[str]:
    """Write them, and return their addresses."""
    addresses: list[str] = []

    async def write_some() -> None:
        while chunk := list(islice(documents, _CHUNK)):
            addresses.extend(document["email"] for document in chunk)
            await store.bulk_index(chunk)

    await asyncio.gather(*(write_some() for _ in range(_LOADING)))
    await store.refresh()
    return addresses


async def _asked(searched: _Searched, ask: Ask) -> Figures:
    """Ask for every fragment, one after the other.

    Raises:
        Fatal: others were found than by who asked first.
    """
    for _, fragment in searched.warm_up:
        await ask(fragment)
    times: dict[str, list[float]] = defaultdict(list)
    for kind, fragment in searched.fragments:
        begin = time.perf_counter()
        ids = await ask(fragment)
        times[kind].append((time.perf_counter() - begin) * 1000)
        if ids != searched.found.setdefault(fragment, ids):
            raise Fatal(f"other users were found for {fragment!r}")
    everything = [one for some in times.values() for one in some]
    return {
        "p50 ms": percentile(everything, 50),
        "p99 ms": percentile(everything, 99),
        **{f"{kind}, p50 ms": percentile(some, 50) for kind, some in times.items()},
    }


async def our_query(ground: BenchContext) -> Figures:
    """`GetUsersByEmail`, through the query bus."""
    return await _through_the_bus(await ground.once(_searched))


async def of_many_users(ground: BenchContext) -> Figures:
    """The same, of many more users."""
    return await _through_the_bus(await ground.once(_searched_of_many))


async def _through_the_bus(searched: _Searched) -> Figures:
    async def ask(fragment: str) -> Sequence[str]:
        page = await searched.queries.execute(GetUsersByEmail(fragment, PAGE))
        return [user.id for user in page.items]

    return {**await _asked(searched, ask), ON_DISK: searched.size / searched.users}


async def while_indexing(ground: BenchContext) -> Figures:
    """The same, while a view worker writes changes of users, from their events."""
    searched = await ground.once(_searched)
    settings = searched.settings
    topic = TopicNames.of(settings, USERS.name).events
    log = ground.folder / f"{settings.namespace}views.log"
    async with started(new_producer(settings), settings) as producer:
        sender = BulkSender(producer, topic, settings.partitions)
        with contestant(command_line(ROLES["views"]), settings, log) as worker:
            enough = asyncio.Event()
            changing = asyncio.create_task(_change(sender, searched.changes, enough))
            try:
                before = await _indexed(searched)

                async def begun() -> bool:
                    worker.check()
                    return await _indexed(searched) >= before + _CHANGES

                await wait_until(begun, what="the view worker writes")
                figures = await _through_the_bus(searched)
            finally:
                enough.set()
                await changing
    return figures


async def _change(
    sender: BulkSender, changes: Iterator[tuple[bytes, bytes]], enough: asyncio.Event
) -> None:
    """Send so many per second, and as fast as it goes if it was late; none is left out."""
    begin, sent = time.perf_counter(), 0
    while not enough.is_set():
        for key, value in islice(changes, _BATCH):
            await sender.add(key, value)
        await sender.hand_over()
        sent += _BATCH
        await asyncio.sleep(max(0, begin + sent / _CHANGES - time.perf_counter()))
    await sender.flush()


async def _indexed(searched: _Searched) -> int:
    """How many documents were ever written."""
    found = await searched.client.indices.stats(index=searched.store.name, metric="indexing")
    return int(found["_all"]["primaries"]["indexing"]["index_total"])


async def wildcard_query(ground: BenchContext) -> Figures:
    """The same page by a `wildcard` query."""
    searched = await ground.once(_searched)

    async def ask(fragment: str) -> Sequence[str]:
        hits = await searched.store.search(wildcard(fragment), sort=ORDER, limit=PAGE + 1)
        return [hit.document["id"] for hit in hits[:PAGE]]

    return await _asked(searched, ask)


@asynccontextmanager
async def _in_postgresql(ground: BenchContext) -> AsyncIterator[Users]:
    from benchmarks.peers.pg_trgm import open_users

    async with open_users(_documents(ground, ground.size["users"])) as users:
        yield users


async def trigrams_in_postgresql(ground: BenchContext) -> Figures:
    """The same page from `peers/pg_trgm.py`."""
    searched = await ground.once(_searched)
    users = await ground.once(_in_postgresql)
    size = await users.size()

    async def ask(fragment: str) -> Sequence[str]:
        return (await users.find(fragment, PAGE + 1))[:PAGE]

    return {**await _asked(searched, ask), ON_DISK: size / ground.size["users"]}


SEARCH = Benchmark(
    name="search",
    about=(
        "Milliseconds at the client for the first 50 users, by the time of registration and id, "
        "whose email has a fragment in it; one query after the other. The fragments, seeded, are "
        "domains, beginnings of names, any 3 to 12 characters, any 1 or 2, whole addresses, upper "
        "case, and such as are in no address; other ones warm up before, since a JVM that has "
        "just started takes five times as long. Everyone has to find the same. An index was "
        "filled once, by the view's own code, and is left alone unless said."
    ),
    sizes={
        "small": {"users": 20_000, "many users": 30_000, "fragments": 140, "warm-up": 70},
        "full": {
            "users": 1_000_000,
            "many users": 5_000_000,
            "fragments": 700,
            "warm-up": 700,
        },
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "The query `GetUsersByEmail` through the query bus: a sparse phrase of 3-grams on the "
            "sorted index (`docs/search.md`), checked documents as answers.",
            our_query,
        ),
        Contestant(
            "cqrs-streams, while indexing",
            "The same, while a view worker writes 2,000 documents/s: changes of 20,000 of the "
            "users, which come as events.",
            while_indexing,
        ),
        Contestant(
            MANY,
            "The same query in an index of many more users (`many users` below).",
            of_many_users,
        ),
        Contestant(
            "wildcard query",
            "What most people write: `*fragment*` on a keyword of the lower-cased address, in the "
            "same index, with the same order. The field type `wildcard` is no part of "
            "Elasticsearch's core, which is all that the embedded one has.",
            wildcard_query,
        ),
        Contestant(
            "PostgreSQL, pg_trgm",
            "ILIKE with ORDER BY and LIMIT on the same users, a GIN index of trigrams, and one in "
            "the order of the list; vacuumed, analyzed, 512 MB of shared buffers.",
            trigrams_in_postgresql,
        ),
    ),
    targets=(
        Target("p50 ms", most=3),
        Target("p99 ms", most=10),
        Target("p50 ms", most=1 / 25, to="wildcard query"),
        Target("p99 ms", most=20, of=MANY),
    ),
    needs=("psycopg",),
)
