"""How long it takes to rebuild a view, while the former index is served."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from benchmarks.peers.bulk_loop import bodies, send_bodies
from benchmarks.projecting import CPU_PER_DOCUMENT, DOCUMENTS_PER_SECOND
from benchmarks.rig.backlog import new_deployment, send
from benchmarks.rig.indices import (
    REQUEST_TIMEOUT_S,
    WAIT_TIMEOUT_S,
    new_index,
    wait_until_all_found,
    wait_until_merged,
)
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.sample_users import key_and_value, registrations
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line, module_command
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.elasticsearch.connection import connect
from streams.settings import Settings
from streams.views.cutover import prune
from streams.views.indices import ViewIndices
from streams.views.situation import IndexState

SECONDS = "s"


class _View(NamedTuple):
    settings: Settings
    client: AsyncElasticsearch
    indices: ViewIndices

    async def serving(self) -> IndexState | None:
        """Return the index that is served, if there is one."""
        return next((one for one in await self.indices.all() if one.serving), None)


@asynccontextmanager
async def _open_served_view(context: BenchContext) -> AsyncIterator[_View]:
    """Write the events of all users, and run a view worker until the block ends.

    Yields when the worker serves an index with all users.
    """
    settings, names = await new_deployment(context)
    events = registrations(context.size["users"], context.seed)
    await send(settings, names.events, map(key_and_value, events))
    log = context.folder / f"{settings.namespace}views.log"
    async with connect(settings, timeout=REQUEST_TIMEOUT_S) as client:
        view = _View(settings, client, ViewIndices.from_settings(settings, client, USER_VIEWS))
        with contestant(command_line(ROLES["views"]), settings, log) as worker:

            async def is_served() -> bool:
                worker.check()
                return await view.serving() is not None

            await wait_until(is_served, timeout=WAIT_TIMEOUT_S, what="an index is served")
            await wait_until_merged(client, view.indices.alias)
            yield view


async def our_rebuild(context: BenchContext, processes: int = 1) -> Figures:
    """Measure `cqrs views rebuild`, from the start of its process to its end."""
    view = await context.once(_open_served_view)
    settings, users = view.settings, context.size["users"]
    former = await view.serving()
    log = context.folder / f"{settings.namespace}rebuild.log"
    command = [*module_command("deploy.cli"), "views", "rebuild", "--processes", str(processes)]
    begin = time.perf_counter()
    with contestant(command, settings, log) as process:
        cpu_seconds = await process.finished(timeout=WAIT_TIMEOUT_S)
    seconds = time.perf_counter() - begin
    now = await view.serving()
    if former is None or now is None or now.number <= former.number:
        raise Fatal("the rebuild has ended, but no new index is served")
    await wait_until_all_found(view.client, now.name, users)
    await prune(settings, USER_VIEWS, [former.name])
    await wait_until_merged(view.client, now.name)
    return _figures(users, seconds, cpu_seconds)


async def plain_loop(context: BenchContext) -> Figures:
    """Measure `client.bulk` with ready-made bytes, until a search finds all documents."""
    users = context.size["users"]
    ready = bodies(users, context.seed)
    async with new_index(context) as (_, client, index):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        await send_bodies(client, index, ready)
        await wait_until_all_found(client, index, users)
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    return _figures(users, seconds, cpu_seconds)


def _figures(users: int, seconds: float, cpu_seconds: float) -> Figures:
    return {
        SECONDS: seconds,
        DOCUMENTS_PER_SECOND: users / seconds,
        CPU_PER_DOCUMENT: cpu_seconds / users * 1e6,
    }


REBUILDING = Benchmark(
    name="rebuilding",
    about=(
        "Seconds to rebuild a view of users from their events. The events are registrations on "
        "four partitions. Nobody searches or sends commands meanwhile; between the rounds the "
        "former index is deleted and Elasticsearch finishes merging. The CPU is that of the "
        "process, without Elasticsearch, the broker and the view worker."
    ),
    sizes={"small": {"users": 30_000}, "full": {"users": 1_000_000}},
    contestants=(
        Contestant(
            "cqrs-streams",
            "`cqrs views rebuild` from the start of its process to its end, while the former index "
            "is served and a view worker runs: it reads and checks the events, builds the "
            "documents, checks the sums of the index, hands the index over to the worker and moves "
            "the alias.",
            our_rebuild,
        ),
        Contestant(
            "cqrs-streams, two processes",
            "The same with `--processes 2`.",
            partial(our_rebuild, processes=2),
        ),
        Contestant(
            "plain bulk loop",
            "The limit: the same documents, encoded before the clock starts, sent by `client.bulk` "
            "in bodies of 2,000, four requests at a time, into an existing index, until a search "
            "counts them all. Reads no events, checks nothing, and no worker follows the index.",
            plain_loop,
        ),
    ),
    targets=(Target(SECONDS, most=1.4, to="plain bulk loop"),),
)
