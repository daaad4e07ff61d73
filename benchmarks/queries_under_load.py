"""How fast queries are answered while documents are indexed, against an index that is left alone.

    python -m benchmarks.queries_under_load --users 100000 --rate 2000 --rounds 3

Loads seeded users into an index of their own. Then, in turns, queries are asked one after the other
for some seconds while nothing else goes on, and while another process projects events at the given
rate by the real projector and writer: half of them are new users, half change one. Times are taken
at the client, through the query bus; a round before warms up. Prints JSON, medians of the rounds.
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
from datetime import timedelta
from itertools import count, cycle, islice
from multiprocessing import get_context
from typing import Any

from agents.user_queries import UserQueryHandler
from agents.user_views import USER_VIEWS
from benchmarks.search import PAGE, SEED, load, make_fragments, percentiles, registrations
from deploy.embedded.stack import EmbeddedStack
from models.events import UserEvent, UserProfileUpdated
from models.messages import EventRecord
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from streams.buses import QueryBus
from streams.commands import partition_of
from streams.elasticsearch import connect
from streams.projector import Projector
from streams.settings import Settings
from streams.view_indices import ViewIndices
from streams.view_store import ViewStore
from streams.view_writer import PartitionWriter, Positioned

INDEX = replace(USER_VIEWS.index, alias="benchmark-queries-under-load")
NAME = f"{INDEX.alias}-v1"
TICK = 0.25  # seconds between two chunks
MOST_NEW = 1_000_000  # users that may come


def changes(users: int) -> Iterator[EventRecord[UserEvent]]:
    """New users and changes of those who were there, in turns, for ever."""
    everybody = registrations(users + MOST_NEW)
    existing = list(islice(everybody, users))
    chance = random.Random(SEED)
    versions: dict[str, int] = defaultdict(lambda: 1)
    for number in count():
        yield next(everybody)
        user = chance.choice(existing)
        versions[user.aggregate_id] += 1
        yield replace(
            user,
            sequence=versions[user.aggregate_id],
            timestamp=user.timestamp + timedelta(days=1),
            event=UserProfileUpdated(last_name=f"Number {number}"),
        )


async def project(settings: Settings, users: int, rate: int, running: Any, written: Any) -> None:
    """Project at this rate whenever `running` is set; `written` counts the events."""
    async with connect(settings, timeout=60) as client:
        store = ViewStore(client, INDEX, name=NAME)
        projector: Projector[UserEvent] = Projector(store, USER_VIEWS.projection)
        writers = [
            PartitionWriter(store, projector, USER_VIEWS.projection, number)
            for number in range(settings.partitions)
        ]
        for writer in writers:
            await writer.start()
        events = changes(users)
        while running.wait():
            due = time.monotonic()
            while running.is_set():
                chunks: dict[int, list[Positioned]] = defaultdict(list)
                for event in islice(events, round(rate * TICK)):
                    number = partition_of(event.aggregate_id.encode(), settings.partitions)
                    begin = writers[number].progress.position
                    chunks[number].append(Positioned(begin + len(chunks[number]), event))
                await asyncio.gather(
                    *(
                        writers[number].write(chunk, chunk[-1].offset + 1)
                        for number, chunk in chunks.items()
                    )
                )
                written.value += sum(map(len, chunks.values()))
                due += TICK
                await asyncio.sleep(max(0, due - time.monotonic()))


def keep_projecting(settings: Settings, users: int, rate: int, running: Any, written: Any) -> None:
    """What the other process does."""
    asyncio.run(project(settings, users, rate, running, written))


async def ask(queries: QueryBus, asked: Iterator[tuple[str, object]], seconds: float) -> Any:
    """Percentiles of the answers' times, by kind of query."""
    times: dict[str, list[float]] = defaultdict(list)
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        kind, query = next(asked)
        await queries.execute(query)
        times[kind].append((time.perf_counter() - begin) * 1000)
    return {kind: {**percentiles(found), "queries": len(found)} for kind, found in times.items()}


async def run(settings: Settings, users: int, rate: int, seconds: float, rounds: int) -> Any:
    """Everything, on an index that is deleted first."""
    context = get_context("spawn")
    running, written = context.Event(), context.Value("q", 0)
    arguments = (settings, users, rate, running, written)
    async with connect(settings, timeout=60) as client:
        indices = ViewIndices(client, INDEX, "benchmark")
        await indices.drop(NAME)
        await indices.create(1, {}, followed=True)
        store = ViewStore(client, INDEX, name=NAME)
        _, addresses = await load(store, users)
        queries = QueryBus()
        UserQueryHandler(store).register_at(queries)
        asked = cycle(
            (kind, query)
            for (_, fragment), user in zip(
                make_fragments(addresses, 500), registrations(500), strict=True
            )
            for kind, query in (
                ("email fragment", GetUsersByEmail(fragment, PAGE)),
                ("by id", GetUserById(user.aggregate_id)),
                ("active, first page", GetActiveUsers(PAGE)),
            )
        )
        process = context.Process(target=keep_projecting, args=arguments, daemon=True)
        process.start()
        idle, loaded, rates = [], [], []
        try:
            for number in range(-1, rounds):
                one = await ask(queries, asked, seconds)
                running.set()
                await asyncio.sleep(2)  # it has begun, and the index refreshes
                before, begin = written.value, time.perf_counter()
                other = await ask(queries, asked, seconds)
                rates.append((written.value - before) / (time.perf_counter() - begin))
                running.clear()
                await asyncio.sleep(2)
                if number >= 0:
                    idle.append(one)
                    loaded.append(other)
        finally:
            process.kill()
            process.join()
        documents = await store.count()
    return {
        "users": users,
        "users_at_the_end": documents,
        "documents_per_second": round(statistics.median(rates[1:])),
        "idle": medians(idle),
        "while_indexing": medians(loaded),
        "rounds": rounds,
    }


def medians(rounds: list[Any]) -> Any:
    """Of each figure, over the rounds."""
    return {
        kind: {name: statistics.median(one[kind][name] for one in rounds) for name in figures}
        for kind, figures in rounds[0].items()
    }


def main() -> None:
    """Run it on a stack of its own and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=2000, help="documents per second")
    parser.add_argument("--seconds", type=float, default=15, help="of each part of a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    with EmbeddedStack.temporary(elasticsearch_heap_mb=1024) as stack:
        settings = Settings(elasticsearch_url=stack.elasticsearch_url)
        figures = asyncio.run(run(settings, given.users, given.rate, given.seconds, given.rounds))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "seed": SEED}
    json.dump({**figures, **machine, "load_before": load_before}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
