"""How fast users are found by a fragment of their email: the first 50, in the view's order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from elasticsearch import AsyncElasticsearch

from agents.user_queries import UserQueryHandler
from agents.user_views import ORDER, USER_VIEWS, to_source
from agents.users import USERS
from deploy.bench.benchmark import Benchmark, Contestant, Figures, Ground, percentile
from deploy.bench.registrations import registrations
from deploy.faults.deployment import new_settings
from deploy.faults.waiting import wait_until
from models.errors import Fatal
from models.queries import GetUsersByEmail
from models.views import project
from streams.aggregate import Names
from streams.buses import QueryBus
from streams.elasticsearch import connect
from streams.fragments import fold
from streams.freshness import Freshness
from streams.view_index import Document
from streams.view_indices import ViewIndices
from streams.view_store import ViewStore

if TYPE_CHECKING:
    from deploy.bench.peers.pg_trgm import Users

PAGE = 50
KINDS = ("domain", "name", "3-12 characters", "1-2 characters", "full", "upper case", "absent")
_LOADING = 4  # requests at a time
_CHUNK = 2000  # documents
_TIMEOUT = 60.0  # seconds for one request
_MERGED = 300.0  # seconds until the index is left alone

Ask = Callable[[str], Awaitable[Sequence[str]]]
"""From a fragment to the ids of the first page."""


def _with_lower_case(document: Document) -> Document:
    return {**to_source(document), "lowerCase": fold(document["email"])}


_INDEX = replace(
    USER_VIEWS.index,
    # what a wildcard query reads; it is neither read back nor part of our own search
    properties={**USER_VIEWS.index.properties, "lowerCase": {"type": "keyword"}},
    hidden=(*USER_VIEWS.index.hidden, "lowerCase"),
    to_source=_with_lower_case,
)


@dataclass(frozen=True)
class _Searched:
    """The index, what is looked for, and what was found by who asked first."""

    store: ViewStore
    queries: QueryBus
    warm_up: Sequence[tuple[str, str]]
    fragments: Sequence[tuple[str, str]]
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
    literal = "".join(f"\\{one}" if one in "*?\\" else one for one in fold(fragment))
    return {"wildcard": {"lowerCase": {"value": f"*{literal}*"}}}


def _documents(ground: Ground) -> Iterator[Document]:
    events = registrations(ground.size["users"], ground.seed)
    return (project(None, event) for event in events)


@asynccontextmanager
async def _searched(ground: Ground) -> AsyncIterator[_Searched]:
    """An index with all users, written as the view worker writes them."""
    settings = new_settings(ground.stack)
    index = replace(_INDEX, alias=settings.namespace + _INDEX.alias)
    async with connect(settings, timeout=_TIMEOUT) as client:
        indices = ViewIndices(client, index, "benchmark")
        await indices.create(1, {}, followed=True)
        store = ViewStore(client, index, name=f"{index.alias}-v1")
        addresses = await _load(store, _documents(ground))
        await _until_merged(client, store)
        commands = Names(settings.namespace, USERS.name).commands
        queries = QueryBus()
        freshness = Freshness(store, commands, settings.partitions)
        UserQueryHandler(store).register_at(queries, freshness)
        chance = random.Random(ground.seed)
        warm_up = make_fragments(addresses, ground.size["warm-up"], chance)
        fragments = make_fragments(addresses, ground.size["fragments"], chance)
        yield _Searched(store, queries, warm_up, fragments, {})


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


async def _until_merged(client: AsyncElasticsearch, store: ViewStore) -> None:
    async def merged() -> bool:
        found = await client.indices.stats(index=store.name, metric="merge")
        return bool(found["_all"]["total"]["merges"]["current"] == 0)

    await wait_until(merged, timeout=_MERGED, what="its segments are merged")


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


async def our_query(ground: Ground) -> Figures:
    """`GetUsersByEmail`, through the query bus."""
    searched = await ground.once(_searched)

    async def ask(fragment: str) -> Sequence[str]:
        page = await searched.queries.execute(GetUsersByEmail(fragment, PAGE))
        return [user.id for user in page.items]

    return await _asked(searched, ask)


async def wildcard_query(ground: Ground) -> Figures:
    """The same page by a `wildcard` query."""
    searched = await ground.once(_searched)

    async def ask(fragment: str) -> Sequence[str]:
        hits = await searched.store.search(wildcard(fragment), sort=ORDER, limit=PAGE + 1)
        return [hit.document["id"] for hit in hits[:PAGE]]

    return await _asked(searched, ask)


@asynccontextmanager
async def _in_postgresql(ground: Ground) -> AsyncIterator[Users]:
    from deploy.bench.peers.pg_trgm import open_users

    async with open_users(_documents(ground)) as users:
        yield users


async def trigrams_in_postgresql(ground: Ground) -> Figures:
    """The same page from `peers/pg_trgm.py`."""
    searched = await ground.once(_searched)
    users = await ground.once(_in_postgresql)

    async def ask(fragment: str) -> Sequence[str]:
        return (await users.find(fragment, PAGE + 1))[:PAGE]

    return await _asked(searched, ask)


SEARCH = Benchmark(
    name="search",
    about=(
        "Milliseconds at the client for the first 50 users, by the time of registration and id, "
        "whose email has a fragment in it; one query after the other. The fragments, seeded, are "
        "domains, beginnings of names, any 3 to 12 characters, any 1 or 2, whole addresses, upper "
        "case, and such as are in no address; other ones warm up before. Everyone has to find the "
        "same. The index was filled once, by the view's own code, and is left alone meanwhile."
    ),
    sizes={
        "small": {"users": 20_000, "fragments": 140, "warm-up": 70},
        "full": {"users": 1_000_000, "fragments": 210, "warm-up": 70},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "The query `GetUsersByEmail` through the query bus: a sparse phrase of 3-grams on the "
            "sorted index (`docs/search.md`), checked documents as answers.",
            our_query,
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
    needs=("psycopg",),
)
