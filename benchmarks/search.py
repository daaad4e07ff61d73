"""How fast users are found by a fragment of their email, against the `wildcard` query.

    python -m benchmarks.search --users 1000000 --fragments 100 --rounds 3

Loads seeded users through the projector into an index of their own, which also has the lower-cased
address for the `wildcard` query; then asks both ways for the first page of every fragment, one
after the other in the same run, and checks that both find the same. Times are taken at the client,
through the query bus on one side; three rounds before warm up Elasticsearch. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from agents.user_queries import UserQueryHandler
from agents.user_views import ORDER, USER_VIEWS, to_source
from deploy.bench.registrations import registrations
from deploy.embedded.stack import EmbeddedStack
from models.events import UserEvent, UserRegistered
from models.queries import GetUsersByEmail
from streams.buses import QueryBus
from streams.elasticsearch import connect
from streams.fragments import fold
from streams.freshness import Freshness
from streams.projector import Projector
from streams.settings import Settings
from streams.view_index import Document
from streams.view_indices import ViewIndices
from streams.view_store import ViewStore

SEED = 42
PAGE = 50
PARTITIONS = 4
CHUNK = 2000
WARM_UP = 3


def _with_lower_case(document: Document) -> Document:
    return {**to_source(document), "lowerCase": fold(document["email"])}


INDEX = replace(
    USER_VIEWS.index,
    alias="benchmark-user-views",
    properties={**USER_VIEWS.index.properties, "lowerCase": {"type": "keyword"}},
    hidden=(*USER_VIEWS.index.hidden, "lowerCase"),
    to_source=_with_lower_case,
)


async def load(store: ViewStore, count: int) -> tuple[float, list[str]]:
    """Seconds spent in the projector, and all addresses."""
    projector: Projector[UserEvent] = Projector(store, USER_VIEWS.projection, cached_documents=0)
    events = registrations(count, SEED)
    spent = 0.0
    addresses: list[str] = []
    while chunks := [chunk for _ in range(PARTITIONS) if (chunk := [*islice(events, CHUNK)])]:
        begin = time.perf_counter()
        await asyncio.gather(*(projector.project(n, chunk) for n, chunk in enumerate(chunks)))
        spent += time.perf_counter() - begin
        addresses.extend(
            one.event.email
            for chunk in chunks
            for one in chunk
            if isinstance(one.event, UserRegistered)
        )
    await store.refresh()
    return spent, addresses


def make_fragments(addresses: list[str], count: int) -> list[tuple[str, str]]:
    """Kinds and fragments: what people type, and what is hard."""
    chance = random.Random(SEED)

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

    kinds = ("domain", "name", "3-12 characters", "1-2 characters", "full", "upper case", "absent")
    return [(kind, one(kind)) for kind in islice(_cycle(kinds), count)]


def _cycle(kinds: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from kinds


def wildcard(fragment: str) -> dict[str, Any]:
    """What most people write."""
    literal = "".join(f"\\{one}" if one in "*?\\" else one for one in fold(fragment))
    return {"wildcard": {"lowerCase": {"value": f"*{literal}*"}}}


async def search(store: ViewStore, fragments: list[tuple[str, str]], rounds: int) -> dict[str, Any]:
    """Latencies of both ways in milliseconds, and how often they did not find the same."""
    queries = QueryBus()
    UserQueryHandler(store).register_at(queries, Freshness(store, "users.commands.v1", 4))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    mismatches = 0
    for number in range(-WARM_UP, rounds):
        for kind, fragment in fragments:
            begin = time.perf_counter()
            page = await queries.execute(GetUsersByEmail(fragment, PAGE))
            middle = time.perf_counter()
            hits = await store.search(wildcard(fragment), sort=ORDER, limit=PAGE + 1)
            end = time.perf_counter()
            mismatches += [one.id for one in page.items] != [
                hit.document["id"] for hit in hits[:PAGE]
            ]
            if number >= 0:
                times["fragments", kind].append((middle - begin) * 1000)
                times["wildcard", kind].append((end - middle) * 1000)
    kinds = sorted({kind for kind, _ in fragments})
    return {
        "mismatches": mismatches,
        **{
            way: {
                "all": percentiles([one for kind in kinds for one in times[way, kind]]),
                **{kind: percentiles(times[way, kind]) for kind in kinds},
            }
            for way in ("fragments", "wildcard")
        },
    }


def percentiles(times: list[float]) -> dict[str, float]:
    """Of milliseconds."""
    ordered = sorted(times)
    return {
        f"p{percent}_ms": round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 2)
        for percent in (50, 95, 99)
    } | {"mean_ms": round(statistics.mean(ordered), 2)}


async def run(settings: Settings, users: int, fragments: int, rounds: int) -> dict[str, Any]:
    """Everything, on an index that is deleted first."""
    async with connect(settings, timeout=60) as client:
        name = f"{INDEX.alias}-v1"
        indices = ViewIndices(client, INDEX, "benchmark")
        await indices.drop(name)
        await indices.create(1, {}, followed=True)
        store = ViewStore(client, INDEX, name=name)
        spent, addresses = await load(store, users)
        found = await search(store, make_fragments(addresses, fragments), rounds)
        stats = await client.indices.stats(index=name, metric="store")
    size = stats["_all"]["primaries"]["store"]["size_in_bytes"]
    return {
        "users": len(addresses),
        "fragments": fragments,
        "rounds": rounds,
        "projected_documents_per_second": round(len(addresses) / spent),
        "bytes_on_disk_per_document": round(size / len(addresses)),
        "first_page": found,
    }


def main() -> None:
    """Run it on a stack of its own and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--fragments", type=int, default=100, help="different ones")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with EmbeddedStack.temporary(elasticsearch_heap_mb=1024) as stack:
        settings = Settings(elasticsearch_url=stack.elasticsearch_url)
        figures = asyncio.run(run(settings, arguments.users, arguments.fragments, arguments.rounds))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "seed": SEED}
    json.dump({**figures, **machine}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
