"""An index of users, fragments of their email addresses, and the time that searches for them take.

Every contestant of the search benchmark searches the same users for the same fragments and must
find the same ids.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice

from elasticsearch import AsyncElasticsearch

from agents.user_queries import UserQueryHandler
from agents.user_views import USER_VIEWS
from benchmarks.rig.backlog import new_deployment
from benchmarks.rig.indices import REQUEST_TIMEOUT_S, wait_until_merged
from benchmarks.rig.runner import BenchContext, Figures, percentile
from benchmarks.rig.sample_users import changes, registrations
from models.errors import Fatal
from models.user_view import project
from streams.buses import QueryBus
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import Document, IndexDefinition, in_namespace, writes_alias
from streams.settings import Settings
from streams.views.indices import LOADING_SETTINGS, ViewIndices
from streams.views.read_your_writes import ReadYourWrites
from streams.views.store import ViewStore

KINDS = ("domain", "name", "3-12 characters", "1-2 characters", "full", "upper case", "absent")
_CHANGED_USERS = 20_000  # at most; they are changed in turn
_PARALLEL_REQUESTS = 4
_CHUNK_DOCUMENTS = 2000

Search = Callable[[str], Awaitable[Sequence[str]]]
"""Searches for a fragment and returns the ids of the first page."""


@dataclass(frozen=True)
class SearchedUsers:
    """An index with all users, and what is searched in it; `open_searched_users` creates it.

    Attributes:
        settings: Of its namespace.
        client: Connected to its Elasticsearch.
        store: The index.
        users: Number of users in it.
        size: Bytes on disk.
        queries: A query bus that searches it.
        warm_up: Kinds and fragments to search for before the time is measured.
        fragments: Kinds and fragments to search for.
        changes: Keys and values of events that change users, without end.
        found: The ids that the first contestant found, by fragment.
    """

    settings: Settings
    client: AsyncElasticsearch
    store: ViewStore
    users: int
    size: int
    queries: QueryBus
    warm_up: Sequence[tuple[str, str]]
    fragments: Sequence[tuple[str, str]]
    changes: Iterator[tuple[bytes, bytes]]
    found: dict[str, Sequence[str]]


@asynccontextmanager
async def open_searched_users(
    context: BenchContext,
    *,
    index: IndexDefinition = USER_VIEWS.index,
    shards: int = 1,
) -> AsyncIterator[SearchedUsers]:
    """Load all users into a new index, as the view worker would write them.

    Args:
        context: Of the benchmark.
        index: Definition of the index. A view worker follows it, so it may differ from the view's
            in how fields are indexed only.
        shards: Number of its shards. No view worker follows one with several.
    """
    users = context.size["users"]
    settings, names = await new_deployment(context)
    index = in_namespace(settings, index)
    async with connect(settings, timeout=REQUEST_TIMEOUT_S) as client:
        name = f"{index.alias}-v1"
        if shards == 1:
            indices = ViewIndices(client, index, USER_VIEWS.definition)
            await indices.create(1, {}, followed=True)
        else:
            await client.indices.create(
                index=name,
                settings={
                    "index": {**index.settings, "number_of_shards": shards, **LOADING_SETTINGS}
                },
                mappings=index.mappings(),
                aliases={writes_alias(name): {}},
            )
        store = ViewStore(client, index, name=name)
        addresses = await _load(store, documents_of(context, users))
        await wait_until_merged(client, store.name)
        # What was merged into others is deleted when neither a search nor a commit has it any more.
        await store.refresh()
        await client.indices.flush(index=store.name)
        stats = await client.indices.stats(index=store.name, metric="store")
        size = int(stats["_all"]["primaries"]["store"]["size_in_bytes"])
        queries = QueryBus()
        read_your_writes = ReadYourWrites(store, names.commands, settings.partitions)
        UserQueryHandler(store).register_at(queries, read_your_writes)
        rng = random.Random(context.seed)
        warm_up = make_fragments(addresses, context.size["warm-up"], rng)
        fragments = make_fragments(addresses, context.size["fragments"], rng)
        del addresses  # some gigabytes if there are many
        changed = changes(min(_CHANGED_USERS, users), context.seed)
        yield SearchedUsers(
            settings, client, store, users, size, queries, warm_up, fragments, changed, {}
        )


def documents_of(context: BenchContext, users: int) -> Iterator[Document]:
    """Yield the documents of this number of users."""
    return (project(None, event) for event in registrations(users, context.seed))


async def _load(store: ViewStore, documents: Iterator[Document]) -> list[str]:
    """Write the documents, and return their email addresses."""
    addresses: list[str] = []

    async def write_chunks() -> None:
        while chunk := list(islice(documents, _CHUNK_DOCUMENTS)):
            addresses.extend(document["email"] for document in chunk)
            await store.bulk_index(chunk)

    await asyncio.gather(*(write_chunks() for _ in range(_PARALLEL_REQUESTS)))
    await store.refresh()
    return addresses


def make_fragments(
    addresses: Sequence[str], count: int, rng: random.Random
) -> list[tuple[str, str]]:
    """Return kinds and fragments of random addresses: what people type, and what is hard."""

    def make(kind: str) -> str:
        address = rng.choice(addresses)
        name, _, domain = address.partition("@")
        length = {"1-2 characters": rng.randint(1, 2)}.get(kind, rng.randint(3, 12))
        start = rng.randrange(max(1, len(address) - length))
        return {
            "domain": "@" + domain,
            "name": name[: rng.randint(3, 6)],
            "full": address,
            "upper case": address[start : start + length].upper(),
            "absent": address[start : start + length] + "zzq",
        }.get(kind, address[start : start + length])

    return [(kind, make(kind)) for kind in islice(cycle(KINDS), count)]


async def time_searches(searched: SearchedUsers, search: Search) -> Figures:
    """Search for every fragment, one after the other, and return p50 and p99 in milliseconds.

    Raises:
        Fatal: it found other users than the first contestant.
    """
    for _, fragment in searched.warm_up:
        await search(fragment)
    times: dict[str, list[float]] = defaultdict(list)
    for kind, fragment in searched.fragments:
        begin = time.perf_counter()
        ids = await search(fragment)
        times[kind].append((time.perf_counter() - begin) * 1000)
        if ids != searched.found.setdefault(fragment, ids):
            raise Fatal(f"other users were found for {fragment!r}")
    all_times = [one for some in times.values() for one in some]
    return {
        "p50 ms": percentile(all_times, 50),
        "p99 ms": percentile(all_times, 99),
        **{f"{kind}, p50 ms": percentile(some, 50) for kind, some in times.items()},
    }
