"""V2: a view is made anew amid commands and searches, and nobody who searches notices."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from elasticsearch import AsyncElasticsearch

from agents.client import open_queries
from agents.user_views import USER_VIEWS
from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from deploy.samples.commands import plan
from deploy.supervisor import die_with
from deploy.waiting import wait_until
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connect
from streams.views.store import open_view_store
from tests.faults.background_queries import Asking
from tests.faults.rebuild_watch import Lag, Loading, Swaps
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import open_view_progress

_TIMEOUT = 60.0  # seconds for one request
_PATIENCE = 3600.0  # seconds for what has to be done with every user
_CATCH_UP = "120"  # seconds that the workers get for a new index
_WATCHED = 500  # users that are asked for


async def rebuild_amid_everything(run: Run) -> None:
    """A rebuild that is killed and started again, then back to the former index and forth again.

    All the while commands come, and every query has to find the users who were there before.
    """
    users, rate = run.pick((3_000, 100.0), (1_000_000, 500.0))
    deployed = await run.deploy("commands", "views", partitions=4)
    watched: dict[str, str] = {}
    records = records_of(_commands(run.seed, users, watched))
    async with (
        open_traffic(deployed, records, rate=rate) as traffic,
        open_view_progress(deployed, run.stack) as progress,
        connect(deployed.settings, timeout=_TIMEOUT) as client,
        open_queries(deployed.settings) as queries,
    ):
        traffic.burst(users)
        run.say(0, users, "users come first")
        await traffic.wait_for_decided(users, timeout=_PATIENCE)
        await traffic.decides_again(timeout=_PATIENCE)  # so all that were sent before are decided
        await progress.catch_up()
        await _refresh(deployed)
        done = asyncio.Event()
        asking = Asking(queries, watched, run.pick(200, 1_000), done)
        swaps, lag = Swaps(client, deployed), Lag(progress)

        async def make_anew_and_go_back() -> None:
            await _rebuild(run, deployed, client, users)
            for _ in range(2):
                await _cqrs(deployed, "views", "rollback", "--timeout", _CATCH_UP)
            await wait_until(lambda: len(swaps.seconds) == 3, what="searches see every swap")
            done.set()

        await gather_or_cancel(
            make_anew_and_go_back(), asking.run(), swaps.watch(done), lag.watch(done)
        )
        await traffic.finish()
        await _all_add_up(deployed)
        await run.verify(deployed, sent=traffic.sent, timeout=_PATIENCE)
    p50, p99 = asking.percentiles()
    run.result.figures |= {
        "users at first": users,
        "a swap takes at most s": round(max(swaps.seconds), 3),
        "the view's longest lag s": round(lag.longest, 1),
        "queries answered": asking.answered,
        "queries that failed or missed a user": 0,
        "walks over all active users": asking.walks,
        "query p50 ms": p50,
        "query p99 ms": p99,
    }


def _commands(seed: int, users: int, watched: dict[str, str]) -> Iterator[dict[str, Any]]:
    """So many registrations, then what comes in life, but nothing about those in `watched`.

    They are active users with their addresses; who they are stands there behind the registrations.
    """
    planned = plan(sys.maxsize, seed, rejected=0.05, duplicates=0.05)
    registrations = (
        command
        for command, status in planned
        if status == "accepted" and command["type"] == "RegisterUser"
    )
    for number in range(users):
        command = next(registrations)
        if number % (users // _WATCHED) == 0:
            watched[command["aggregateId"]] = command["email"]
        yield command
    for command, _ in planned:
        if command["aggregateId"] not in watched:
            yield command


async def _refresh(deployed: Deployment) -> None:
    async with open_view_store(deployed.settings, USER_VIEWS, timeout=_TIMEOUT) as store:
        await store.refresh()


async def _rebuild(run: Run, deployed: Deployment, client: AsyncElasticsearch, users: int) -> None:
    """A process that is killed amid loading, and another one that does the rest."""
    loading = Loading(client, deployed)
    begin, some = time.monotonic(), users * run.rng.uniform(0.1, 0.6)

    async def has_some() -> bool:
        return await loading.documents() >= some

    # in small requests, so that few users take long enough
    bulk = run.pick("50", str(deployed.settings.bulk_documents))
    async with _started(deployed, "views", "rebuild", CQRS_BULK_DOCUMENTS=bulk) as killed:
        await wait_until(has_some, timeout=_PATIENCE, what="a rebuild loads")
        killed.kill()
    require(await loading.goes_on(), "the rebuild was through before it was killed")
    run.result.faults += 1
    await gather_or_cancel(
        _cqrs(deployed, "views", "rebuild", "--timeout", _CATCH_UP),
        loading.watch(partial(run.say, total=users, what="loading")),
    )
    run.result.figures |= {
        "rebuild s, killed once amid it": round(time.monotonic() - begin, 1),
        "loaded documents/s": loading.per_second(),
    }


async def _all_add_up(deployed: Deployment) -> None:
    """Both indices have all events, checksums and all."""

    async def complete() -> bool:
        command = ("views", "status", USER_VIEWS.name, "--check", "--json")
        found = json.loads(await _cqrs(deployed, *command))
        return len(found) == 2 and all(one["complete"] and not one["behind"] for one in found)

    await wait_until(complete, timeout=_PATIENCE, what="all indices add up")


async def _cqrs(deployed: Deployment, *arguments: str) -> bytes:
    """Run the command line to its end; its output. It has to end with code 0."""
    async with _started(deployed, *arguments) as process:
        output, errors = await process.communicate()
    line = f"`cqrs {' '.join(arguments)}` ended with code {process.returncode}: {errors.decode()}"
    require(process.returncode == 0, line)
    return output


@asynccontextmanager
async def _started(deployed: Deployment, *arguments: str, **extra: str) -> AsyncIterator[Process]:
    """A process of the command line, which ends with the block."""
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


V2 = Scenario("V2", "a rebuild amid commands and searches", rebuild_amid_everything)
