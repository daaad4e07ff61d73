"""How many documents one view worker writes per second, from a backlog on four partitions."""

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
from benchmarks.peers.bulk_loop import BULK_DOCUMENTS, bodies, send_bodies, sources
from benchmarks.peers.extra import QUIXSTREAMS
from benchmarks.rig.backlog import new_deployment, send
from benchmarks.rig.indices import (
    REQUEST_TIMEOUT_S,
    WAIT_TIMEOUT_S,
    new_index,
    wait_until_all_found,
)
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.sample_users import key_and_value, registering, registrations
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line, module_command
from deploy.waiting import wait_until
from streams.aggregate import TopicNames
from streams.concurrency import cancel
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import Document, writes_alias
from streams.settings import Settings

DOCUMENTS_PER_SECOND = "documents/s"
CPU_PER_DOCUMENT = "CPU µs/document"
QUIX = "Quix Streams' sink"


async def our_worker(context: BenchContext) -> Figures:
    """Measure our view worker, from events."""
    settings, names = await new_deployment(context)
    events = [*map(key_and_value, registrations(context.size["documents"], context.seed))]
    await send(settings, names.events, events)
    log = context.folder / f"{settings.namespace}views.log"
    async with connect(settings, timeout=REQUEST_TIMEOUT_S) as client:
        with contestant(command_line(ROLES["views"]), settings, log) as worker:
            return await _rate(context, settings, client, worker.check, worker.cpu_seconds)


async def both_workers(context: BenchContext) -> Figures:
    """Measure a command worker and a view worker together, from commands."""
    settings, names = await new_deployment(context)
    commands = [
        (one["aggregateId"].encode(), orjson.dumps(one))
        for one in registering(context.size["documents"], context.seed)
    ]
    await send(settings, names.commands, commands)
    log = context.folder / f"{settings.namespace}views.log"
    decisions = context.folder / f"{settings.namespace}commands.log"
    async with connect(settings, timeout=REQUEST_TIMEOUT_S) as client:
        with (
            contestant(command_line(ROLES["commands"]), settings, decisions) as deciding,
            contestant(command_line(ROLES["views"]), settings, log) as worker,
        ):

            def cpu_seconds() -> float:
                return deciding.cpu_seconds() + worker.cpu_seconds()

            return await _rate(context, settings, client, worker.check, cpu_seconds)


async def plain_loop(context: BenchContext) -> Figures:
    """Measure `client.bulk` with ready-made bytes, four requests in parallel."""
    ready = bodies(context.size["documents"], context.seed)
    async with new_index(context) as (settings, client, index):
        return await _measured(context, settings, client, send_bodies(client, index, ready))


async def bulk_helper(context: BenchContext) -> Figures:
    """Measure `async_bulk` with the same documents as dicts, as its documentation teaches."""
    documents = _documents(context.size["documents"], context.seed)
    async with new_index(context) as (settings, client, index):
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
            await async_bulk(client, actions, chunk_size=BULK_DOCUMENTS, stats_only=True)

        return await _measured(context, settings, client, write())


async def quixstreams_sink(context: BenchContext) -> Figures:
    """Measure `peers/quix_projecting.py`, from a topic of ready-made documents."""
    documents = _documents(context.size["documents"], context.seed)
    async with new_index(context) as (settings, client, index):
        topic = TopicNames.of(settings, "users").events
        records = [(source["id"].encode(), orjson.dumps(source)) for source in documents]
        await send(settings, topic, records)
        command = module_command("benchmarks.peers.quix_projecting")
        log = context.folder / f"{settings.namespace}quixstreams-sink.log"
        arguments = (
            topic,
            writes_alias(index),
            str(BULK_DOCUMENTS),
            str(context.folder / settings.namespace),
        )
        with contestant([*command, *arguments], settings, log) as sink:
            return await _rate(context, settings, client, sink.check, sink.cpu_seconds)


@lru_cache(maxsize=1)
def _documents(count: int, seed: int) -> Sequence[Document]:
    """Return the documents to write; cached for all rounds."""
    return list(sources(count, seed))


async def _measured(
    context: BenchContext,
    settings: Settings,
    client: AsyncElasticsearch,
    write: Coroutine[Any, Any, None],
) -> Figures:
    """Measure documents that `write` writes in this process."""
    writing = asyncio.create_task(write)

    def check() -> None:
        if writing.done():
            writing.result()  # raises its exception, if any

    try:
        return await _rate(context, settings, client, check, time.process_time)
    finally:
        await cancel(writing)


async def _rate(
    context: BenchContext,
    settings: Settings,
    client: AsyncElasticsearch,
    check: Callable[[], None],
    cpu_seconds: Callable[[], float],
) -> Figures:
    """Return documents per second and CPU per document, both after the warm-up.

    Elasticsearch itself counts the documents. Our worker's checkpoints, four per some thousands of
    documents, are counted as well. If the writer is this process, its CPU includes polling that
    count.

    Args:
        context: number of documents, and of those in the warm-up.
        settings: namespace of the index.
        client: connected to Elasticsearch.
        check: raises if the writer has failed.
        cpu_seconds: CPU seconds that the writer has used so far.

    Raises:
        Fatal: the writer has failed, or not all documents were found in time.
    """
    index = f"{settings.namespace}{USER_VIEWS.name}-v1"

    async def indexed() -> int:
        check()
        found = await client.options(ignore_status=404).indices.stats(
            index=index, metric="indexing", filter_path="_all.primaries.indexing.index_total"
        )
        total = found.body.get("_all", {}).get("primaries", {})
        return int(total["indexing"]["index_total"]) if total else 0

    async def wait_until_indexed(number: int) -> tuple[float, float, int]:
        async def is_reached() -> tuple[float, float, int] | None:
            count = await indexed()
            return (time.perf_counter(), cpu_seconds(), count) if count >= number else None

        what = f"{number} documents are indexed"
        found: tuple[float, float, int] = await wait_until(
            is_reached, timeout=WAIT_TIMEOUT_S, what=what
        )
        return found

    documents = context.size["documents"]
    begin, cpu_before, first = await wait_until_indexed(context.size["warm-up"])
    end, cpu_after, last = await wait_until_indexed(documents)
    await wait_until_all_found(client, index, documents)
    return {
        DOCUMENTS_PER_SECOND: (last - first) / (end - begin),
        CPU_PER_DOCUMENT: (cpu_after - cpu_before) / (last - first) * 1e6,
    }


PROJECTING = Benchmark(
    name="projecting",
    about=(
        "Documents that one view worker writes per second. From a backlog of registrations on four "
        "partitions, into a new index with all its search fields, which is not refreshed before it "
        "is complete. Elasticsearch itself counts them, after a warm-up; at the end a search must "
        "find all. The CPU is that of the process, without Elasticsearch and the broker."
    ),
    sizes={
        "small": {"documents": 30_000, "warm-up": 10_000},
        "full": {"documents": 400_000, "warm-up": 100_000},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "Our view worker: reads and checks the events, folds them into documents, builds the "
            "search fields, encodes, writes, and stores a checkpoint after every chunk.",
            our_worker,
        ),
        Contestant(
            "plain bulk loop",
            "The limit: the same documents, encoded before the clock starts, sent by `client.bulk` "
            "in bodies of 2,000, four requests at a time. Reads no events, stores no checkpoint.",
            plain_loop,
        ),
        Contestant(
            "async_bulk",
            "The client's helper with the same documents as dicts, search fields ready-made, 2,000 "
            "at a time. Reads no events, stores no checkpoint.",
            bulk_helper,
        ),
        *(
            Contestant(
                QUIX,
                "Its ElasticsearchSink, which reads the same documents, search fields ready-made, "
                "from a topic and writes 2,000 at a time at each commit, every 5 s (its default). "
                "Sends no versions: a replay sets documents back for a while.",
                quixstreams_sink,
            )
            for _ in QUIXSTREAMS
        ),
        Contestant(
            "cqrs-streams, from commands",
            "A command worker and a view worker together, from a backlog of commands: end to end, "
            "as for users who register.",
            both_workers,
        ),
    ),
    targets=(
        Target(DOCUMENTS_PER_SECOND, least=0.8, to="plain bulk loop"),
        Target(DOCUMENTS_PER_SECOND, least=1.8, to="async_bulk"),
        *(Target(DOCUMENTS_PER_SECOND, least=2, to=QUIX) for _ in QUIXSTREAMS),
    ),
    needs=QUIXSTREAMS,
)
