"""V2: a view is rebuilt during commands and searches, and no search notices."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from elasticsearch import AsyncElasticsearch

from agents.client import open_queries
from agents.user_views import USER_VIEWS
from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from deploy.supervisor import die_with
from deploy.waiting import wait_until
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connect
from streams.progress import no_progress
from streams.views.reader import open_view
from streams.views.status import status_of
from tests.faults.background_queries import BackgroundQueries, commands_around
from tests.faults.rebuild_watch import AliasSwaps, IndexLoading, ViewLag
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import open_view_positions

_REQUEST_TIMEOUT_S = 60.0
_TIMEOUT_S = 3600.0  # for work on all users
_CATCH_UP_TIMEOUT_S = "120"  # for workers to catch up with a new index
_WATCHED_USERS = 500  # that every query must find


async def rebuild_under_load(run: Run) -> None:
    """Kill a rebuild and run it again, then roll back to the former index, and forth again.

    Meanwhile commands keep coming, and every query must find the users who existed before.
    """
    users, rate = run.pick((3_000, 100.0), (1_000_000, 500.0))
    deployed = await run.deploy("commands", "views", partitions=4)
    watched: dict[str, str] = {}
    records = records_of(commands_around(watched, run.seed, users=_WATCHED_USERS, out_of=users))
    async with (
        open_traffic(deployed, records, rate=rate) as traffic,
        open_view_positions(deployed, run.stack) as view,
        connect(deployed.settings, timeout=_REQUEST_TIMEOUT_S) as client,
        open_queries(deployed.settings) as queries,
    ):
        traffic.burst(users)
        run.say(0, users, "users come first")
        await traffic.wait_for_decided(users, timeout=_TIMEOUT_S)
        await traffic.until_deciding(timeout=_TIMEOUT_S)  # then all commands before are decided
        await view.catch_up()
        await _refresh(deployed)
        done = asyncio.Event()
        querying = BackgroundQueries(queries, watched, run.pick(200, 1_000), done)
        swaps, lag = AliasSwaps(client, deployed), ViewLag(view)

        async def rebuild_and_roll_back() -> None:
            await _rebuild(run, deployed, client, users)
            for _ in range(2):
                await _cqrs(deployed, "views", "rollback", "--timeout", _CATCH_UP_TIMEOUT_S)
            await wait_until(lambda: len(swaps.seconds) == 3, what="searches see every swap")
            done.set()

        await gather_or_cancel(
            rebuild_and_roll_back(), querying.run(), swaps.watch(done), lag.watch(done)
        )
        await traffic.finish()
        await _all_add_up(deployed)
        await run.verify(deployed, sent=traffic.sent, timeout=_TIMEOUT_S)
    p50, p99 = querying.percentiles()
    run.result.figures |= {
        "users at first": users,
        "a swap takes at most s": round(max(swaps.seconds), 3),
        "the view's longest lag s": round(lag.longest, 1),
        "queries answered": querying.executed,
        "queries that failed or missed a user": 0,
        "walks over all active users": querying.walks,
        "query p50 ms": p50,
        "query p99 ms": p99,
    }


async def _refresh(deployed: Deployment) -> None:
    async with open_view(deployed.settings, USER_VIEWS, timeout=_REQUEST_TIMEOUT_S) as store:
        await store.refresh()


async def _rebuild(run: Run, deployed: Deployment, client: AsyncElasticsearch, users: int) -> None:
    """Kill a rebuild while it loads, and run another one to the end."""
    loading = IndexLoading(client, deployed)
    begin, some = time.monotonic(), users * run.rng.uniform(0.1, 0.6)

    async def has_some() -> bool:
        return await loading.documents() >= some

    # in small requests, so that few users take long enough
    bulk = run.pick("50", str(deployed.settings.bulk_documents))
    async with _started(deployed, "views", "rebuild", CQRS_BULK_DOCUMENTS=bulk) as killed:
        await wait_until(has_some, timeout=_TIMEOUT_S, what="a rebuild loads")
        killed.kill()
    require(await loading.is_loading(), "the rebuild ended before it was killed")
    run.result.faults += 1
    await gather_or_cancel(
        _cqrs(deployed, "views", "rebuild", "--timeout", _CATCH_UP_TIMEOUT_S),
        loading.watch(partial(run.say, total=users, what="loading")),
    )
    run.result.figures |= {
        "rebuild s, killed once amid it": round(time.monotonic() - begin, 1),
        "loaded documents/s": loading.per_second(),
    }


async def _all_add_up(deployed: Deployment) -> None:
    """Wait until both indices have all events, and their checksums match."""

    async def complete() -> bool:
        found = await status_of(deployed.settings, USER_VIEWS, check=True, progress=no_progress)
        return len(found) == 2 and all(one.complete and not one.behind for one in found)

    await wait_until(complete, timeout=_TIMEOUT_S, what="all indices add up")


async def _cqrs(deployed: Deployment, *arguments: str) -> None:
    """Run the command line to its end.

    Raises:
        Failed: it did not end with code 0.
    """
    async with _started(deployed, *arguments) as process:
        _, errors = await process.communicate()
    line = f"`cqrs {' '.join(arguments)}` ended with code {process.returncode}: {errors.decode()}"
    require(process.returncode == 0, line)


@asynccontextmanager
async def _started(deployed: Deployment, *arguments: str, **extra: str) -> AsyncIterator[Process]:
    """Start the command line; its process ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", *arguments),
        env={**child_environment(deployed.settings), **extra},
        stdout=PIPE,
        stderr=PIPE,
        preexec_fn=partial(die_with, os.getpid()),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


V2 = Scenario("V2", "a rebuild amid commands and searches", rebuild_under_load)
