"""How many documents per second one view worker writes, with a backlog on four partitions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any

import orjson
from elasticsearch import AsyncElasticsearch
from elasticsearch.helpers import async_bulk

from agents.user_views import USER_VIEWS
from benchmarks.peers.bulk_loop import BULK, bodies, send_bodies, sources
from benchmarks.peers.extra import QUIXSTREAMS
from benchmarks.rig.backlog import new_deployment, send
from benchmarks.rig.indices import PATIENCE, TIMEOUT, new_index, until_all_are_found
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.sample_users import key_and_value, registering, registrations
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line, module_command
from deploy.waiting import wait_until
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import Document, writes_alias
from streams.settings import Settings

DOCUMENTS_PER_SECOND = "documents/s"
CPU_PER_DOCUMENT = "CPU µs/document"


async def our_worker(ground: BenchContext) -> Figures:
    """The view worker as it is, from the events."""
    settings, names = await new_deployment(ground)
    events = [*map(key_and_value, registrations(ground.size["documents"], ground.seed))]
    await send(settings, names.events, events)
    log = ground.folder / f"{settings.namespace}views.log"
    async with connect(settings, timeout=TIMEOUT) as client:
        with contestant(command_line(ROLES["views"]), settings, log) as worker:
            return await _rate(ground, settings, client, worker.check, worker.cpu_seconds)


async def both_workers(ground: BenchContext) -> Figures:
    """A command worker and a view worker at once, from the commands."""
    settings, names = await new_deployment(ground)
    commands = [
        (one["aggregateId"].encode(), orjson.dumps(one))
        for one in registering(ground.size["documents"], ground.seed)
    ]
    await send(settings, names.commands, commands)
    log = ground.folder / f"{settings.namespace}views.log"
    decisions = ground.folder / f"{settings.namespace}commands.log"
    async with connect(settings, timeout=TIMEOUT) as client:
        with (
            contestant(command_line(ROLES["commands"]), settings, decisions) as deciding,
            contestant(command_line(ROLES["views"]), settings, log) as worker,
        ):

            def cpu_seconds() -> float:
                return deciding.cpu_seconds() + worker.cpu_seconds()

            return await _rate(ground, settings, client, worker.check, cpu_seconds)


async def plain_loop(ground: BenchContext) -> Figures:
    """Ready-made bytes by `client.bulk`, one request at a time for each partition."""
    ready = bodies(ground.size["documents"], ground.seed)
    async with new_index(ground) as (settings, client, index):
        return await _measured(ground, settings, client, send_bodies(client, index, ready))


async def bulk_helper(ground: BenchContext) -> Figures:
    """`async_bulk` of the same documents as dicts, as its documentation teaches."""
    documents = _documents(ground.size["documents"], ground.seed)
    async with new_index(ground) as (settings, client, index):
        actions = (
            {
                "_index": writes_alias(index),
                "_id": source["id"],
                "version": source["version"],
                "version_type": "external",
                "_source": source,
            }
            for source in documents
        )

        async def write() -> None:
            await async_bulk(client, actions, chunk_size=BULK, stats_only=True)

        return await _measured(ground, settings, client, write())


async def quixstreams_sink(ground: BenchContext) -> Figures:
    """The application of `peers/quix_projecting.py`, from a topic of ready-made documents."""
    documents = _documents(ground.size["documents"], ground.seed)
    async with new_index(ground) as (settings, client, index):
        topic = TopicNames.of(settings, "users").events
        records = [(source["id"].encode(), orjson.dumps(source)) for source in documents]
        await send(settings, topic, records)
        command = module_command("benchmarks.peers.quix_projecting")
        log = ground.folder / f"{settings.namespace}quixstreams-sink.log"
        arguments = topic, writes_alias(index), str(BULK), str(ground.folder / settings.namespace)
        with contestant([*command, *arguments], settings, log) as sink:
            return await _rate(ground, settings, client, sink.check, sink.cpu_seconds)


@lru_cache(maxsize=1)
def _documents(count: int, seed: int) -> Sequence[Document]:
    """What is sent, kept for all rounds."""
    return list(sources(count, seed))


async def _measured(
    ground: BenchContext,
    settings: Settings,
    client: AsyncElasticsearch,
    write: Coroutine[Any, Any, None],
) -> Figures:
    """Measure what is written in this process."""
    writing = asyncio.create_task(write)

    def check() -> None:
        if writing.done():
            writing.result()  # raises what ended it

    try:
        return await _rate(ground, settings, client, check, time.process_time)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _rate(
    ground: BenchContext,
    settings: Settings,
    client: AsyncElasticsearch,
    check: Callable[[], None],
    cpu_seconds: Callable[[], float],
) -> Figures:
    """Documents per second after the warm-up, as Elasticsearch itself counts what it indexes.

    And what the process has used for each; where that is this one, with looking how far it is.

    Our worker's notes of its progress, four for some thousands of documents, are counted as well.

    Raises:
        Fatal: what writes has failed, or some documents are missing.
    """
    index = f"{settings.namespace}{USER_VIEWS.name}-v1"

    async def indexed() -> int:
        check()
        found = await client.options(ignore_status=404).indices.stats(
            index=index, metric="indexing", filter_path="_all.primaries.indexing.index_total"
        )
        total = found.body.get("_all", {}).get("primaries", {})
        return int(total["indexing"]["index_total"]) if total else 0

    async def reached(number: int) -> tuple[float, float, int]:
        async def enough() -> tuple[float, float, int] | None:
            count = await indexed()
            return (time.perf_counter(), cpu_seconds(), count) if count >= number else None

        what = f"{number} documents are indexed"
        found: tuple[float, float, int] = await wait_until(enough, timeout=PATIENCE, what=what)
        return found

    documents = ground.size["documents"]
    begin, cpu_before, first = await reached(ground.size["warm-up"])
    end, cpu_after, last = await reached(documents)
    await until_all_are_found(client, index, documents)
    return {
        DOCUMENTS_PER_SECOND: (last - first) / (end - begin),
        CPU_PER_DOCUMENT: (cpu_after - cpu_before) / (last - first) * 1e6,
    }


PROJECTING = Benchmark(
    name="projecting",
    about=(
        "Documents written per second by one view worker, from a backlog of registrations on four "
        "partitions, into a new index with all its search fields, which is not refreshed before it "
        "is complete. Counted by Elasticsearch itself, after a warm-up; at the end all documents "
        "have to be found. The CPU is that of the process, without Elasticsearch and the broker."
    ),
    sizes={
        "small": {"documents": 30_000, "warm-up": 10_000},
        "full": {"documents": 400_000, "warm-up": 100_000},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "The view worker as it is: reads and checks the events, folds them onto documents, "
            "makes the search fields, encodes, writes, and notes its progress after every chunk.",
            our_worker,
        ),
        Contestant(
            "plain bulk loop",
            "The limit: the same documents, encoded before the clock starts, sent by `client.bulk` "
            "in bodies of 2,000, four requests at a time. Reads no events and keeps no progress.",
            plain_loop,
        ),
        Contestant(
            "async_bulk",
            "The client's helper with the same documents as dicts, search fields ready-made, 2,000 "
            "at a time. Reads no events and keeps no progress.",
            bulk_helper,
        ),
        *(
            Contestant(
                "Quix Streams' sink",
                "Its ElasticsearchSink, which reads the same documents, search fields ready-made, "
                "from a topic and writes 2,000 at a time at each commit, every 5 s (its default). "
                "Sends no versions: what is replayed goes back for a while.",
                quixstreams_sink,
            )
            for _ in QUIXSTREAMS
        ),
        Contestant(
            "cqrs-streams, from commands",
            "A command worker and a view worker at once, from a backlog of commands: what users "
            "who register wait for, end to end.",
            both_workers,
        ),
    ),
    targets=(Target(DOCUMENTS_PER_SECOND, least=0.85, to="plain bulk loop"),),
    needs=QUIXSTREAMS,
)
