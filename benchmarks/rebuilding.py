"""How long it takes to make a view anew, while people read the former index."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from benchmarks.peers.bulk_loop import bodies, send_bodies
from benchmarks.projecting import CPU_PER_DOCUMENT, DOCUMENTS_PER_SECOND
from benchmarks.rig.backlog import new_deployment, send
from benchmarks.rig.indices import PATIENCE, TIMEOUT, new_index, until_all_are_found, until_merged
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
from streams.views.indices import IndexState, ViewIndices

SECONDS = "s"


class _View(NamedTuple):
    settings: Settings
    client: AsyncElasticsearch
    indices: ViewIndices

    async def serving(self) -> IndexState | None:
        """What people read."""
        return next((one for one in await self.indices.all() if one.serving), None)


@asynccontextmanager
async def _served(ground: BenchContext) -> AsyncIterator[_View]:
    """The events of all users, the index that people read, and the worker that follows it."""
    settings, names = await new_deployment(ground)
    events = registrations(ground.size["users"], ground.seed)
    await send(settings, names.events, map(key_and_value, events))
    log = ground.folder / f"{settings.namespace}views.log"
    async with connect(settings, timeout=TIMEOUT) as client:
        view = _View(settings, client, ViewIndices.from_settings(settings, client, USER_VIEWS))
        with contestant(command_line(ROLES["views"]), settings, log) as worker:

            async def is_served() -> bool:
                worker.check()
                return await view.serving() is not None

            await wait_until(is_served, timeout=PATIENCE, what="there is an index to read")
            await until_merged(client, view.indices.alias)
            yield view


async def our_rebuild(ground: BenchContext) -> Figures:
    """`cqrs views rebuild`, from its start to its end."""
    view = await ground.once(_served)
    settings, users = view.settings, ground.size["users"]
    former = await view.serving()
    log = ground.folder / f"{settings.namespace}rebuild.log"
    command = [*module_command("deploy.cli"), "views", "rebuild"]
    begin = time.perf_counter()
    with contestant(command, settings, log) as process:
        cpu_seconds = await process.finished(timeout=PATIENCE)
    seconds = time.perf_counter() - begin
    now = await view.serving()
    if former is None or now is None or now.number <= former.number:
        raise Fatal("the rebuild has ended and people read no other index")
    await until_all_are_found(view.client, now.name, users)
    await prune(settings, USER_VIEWS, [former.name])
    await until_merged(view.client, now.name)
    return _figures(users, seconds, cpu_seconds)


async def plain_loop(ground: BenchContext) -> Figures:
    """Ready-made bytes into an index of the same definition, until a search finds all."""
    users = ground.size["users"]
    ready = bodies(users, ground.seed)
    async with new_index(ground) as (_, client, index):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        await send_bodies(client, index, ready)
        await until_all_are_found(client, index, users)
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
        "Seconds to make the view of so many users anew, from their registrations on four "
        "partitions. Nobody searches or sends commands meanwhile; between the rounds the former "
        "index is deleted and Elasticsearch merges to its end. The CPU is that of the process, "
        "without Elasticsearch, the broker and the view worker."
    ),
    sizes={"small": {"users": 30_000}, "full": {"users": 1_000_000}},
    contestants=(
        Contestant(
            "cqrs-streams",
            "`cqrs views rebuild` from the start of its process to its end, while the former index "
            "is served and a view worker follows: it reads and checks the events, makes the "
            "documents, adds up what the index has got, hands it over to the worker and moves the "
            "alias.",
            our_rebuild,
        ),
        Contestant(
            "plain bulk loop",
            "The limit: the same documents, encoded before the clock starts, sent by `client.bulk` "
            "in bodies of 2,000, four requests at a time, into an index that is there, until a "
            "search counts them all. Reads no events, checks nothing, and nobody goes on with it.",
            plain_loop,
        ),
    ),
    targets=(Target(SECONDS, most=1.2, to="plain bulk loop"),),
)
