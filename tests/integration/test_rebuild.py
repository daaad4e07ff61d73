"""Views are made anew without downtime, and what an index has lost is projected again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from agents.client import all_users_by_email, open_queries
from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import Fatal, NoSuchView
from models.queries import GetUserById
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client
from streams.progress import no_progress
from streams.views.cutover import prune, roll_back
from streams.views.feed import Feed
from streams.views.indices import ViewIndices
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.rebuild import rebuild
from streams.views.situation import IndexState
from streams.views.source import has_workers
from streams.views.status import IndexStatus, status_of
from tests.conftest import Deploy
from tests.harness.command_line import ROOT, cqrs, cqrs_command
from tests.harness.read_side import (
    REFUSED_UPDATE,
    encoded,
    none_refused,
    record,
    registered,
    send_events,
    serve,
    snapshot,
    view_dead_letters,
)
from tests.harness.traffic import Traffic, open_traffic, records_of
from tests.integration.louder_views_worker import LOUDER_VIEWS

LOUDER_APP = "tests.integration.louder_views_worker"


@asynccontextmanager
async def indices_of(deployed: Deployment) -> AsyncIterator[ViewIndices]:
    async with connect(deployed.settings, timeout=30) as client:
        yield ViewIndices.from_settings(deployed.settings, client, USER_VIEWS)


async def states(deployed: Deployment) -> dict[int, str]:
    async with indices_of(deployed) as indices:
        return {state.number: state.state for state in await indices.all()}


async def until_no_worker(deployed: Deployment, view: View[Any]) -> None:
    """A worker that has ended may be a member of its group until its session is over."""

    async def is_alone() -> bool:
        return not await has_workers(deployed.settings, view, view.definition)

    await wait_until(is_alone)


async def status(deployed: Deployment, view: View[Any] = USER_VIEWS) -> list[IndexStatus]:
    return await status_of(deployed.settings, view, check=True, progress=no_progress)


async def fill(deployed: Deployment, commands: int = 3000) -> None:
    """Send commands, and wait until people see what came of them."""
    async with open_traffic(deployed, records_of(generate(commands))) as traffic:
        traffic.burst(commands)
        await traffic.finish()
    await has_all(deployed)


async def has_all(deployed: Deployment) -> None:
    report = await verify_users(deployed.settings)
    assert report.first_violation is None


async def made_anew(deployed: Deployment, view: View[Any] = USER_VIEWS) -> IndexState:
    return await rebuild(deployed.settings, view, timeout=60, progress=no_progress)


class Searching:
    """Asks for the users who were there at the beginning, again and again."""

    def __init__(self, deployed: Deployment, expected: Collection[str]) -> None:
        self._deployed = deployed
        self._expected = set(expected)
        self.answers = 0

    async def run(self) -> None:
        async with open_queries(self._deployed.settings) as queries:
            while True:
                found = {user.id async for user in all_users_by_email(queries, "example")}
                assert found >= self._expected
                self.answers += 1


@asynccontextmanager
async def searching(deployed: Deployment) -> AsyncIterator[Searching]:
    """Searches for the time of the block, none of which fails or misses anybody."""
    async with open_queries(deployed.settings) as queries:
        expected = {user.id async for user in all_users_by_email(queries, "example")}
    assert expected
    searching = Searching(deployed, expected)
    task = asyncio.create_task(searching.run())
    try:
        yield searching
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


@asynccontextmanager
async def commands_coming(deployed: Deployment) -> AsyncIterator[Traffic]:
    stream = islice(generate(1_000_000, seed=2), 900_000)
    async with open_traffic(deployed, records_of(stream), rate=50.0) as traffic:
        yield traffic
        await traffic.finish()


async def test_a_rebuild_during_commands_and_searches(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed, 300)
    async with searching(deployed) as searches, commands_coming(deployed):
        state = await made_anew(deployed)
        assert state.number == 2
        assert await states(deployed) == {1: "followed", 2: "serving"}
        before = searches.answers
        await wait_until(lambda: searches.answers > before + 3)
        # what is written from now on is in both
        assert (await roll_back_now(deployed)).number == 1
        assert await states(deployed) == {1: "serving", 2: "followed"}
        before = searches.answers
        await wait_until(lambda: searches.answers > before + 3)
    await has_all(deployed)

    async def both_are_complete() -> bool:
        found = await status(deployed)
        return [(one.behind, one.complete) for one in found] == [(0, True), (0, True)]

    await wait_until(both_are_complete)
    await prune(deployed.settings, USER_VIEWS, [f"{deployed.settings.namespace}user-views-v2"])
    assert await states(deployed) == {1: "serving"}
    await fill_more(deployed)
    # with the former one gone, and once more
    assert (await made_anew(deployed)).number == 2
    await has_all(deployed)


async def roll_back_now(deployed: Deployment, view: View[Any] = USER_VIEWS) -> IndexState:
    return await roll_back(deployed.settings, view, timeout=60, progress=no_progress)


async def fill_more(deployed: Deployment) -> None:
    """The workers go on, with an index less."""
    async with open_traffic(deployed, records_of(generate(500, seed=3))) as traffic:
        traffic.burst(500)
        await traffic.finish()
    await has_all(deployed)


async def test_a_changed_program_needs_a_rebuild_and_runs_beside_the_old_one(
    deploy: Deploy,
) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed, 500)
    changed = deployed.start("views", app=LOUDER_APP)
    assert changed.wait() == 1
    assert "cqrs views rebuild user-views" in changed.log_text.splitlines()[-1]
    deployed.workers.remove(changed)
    await until_no_worker(deployed, LOUDER_VIEWS)

    async with searching(deployed) as searches, commands_coming(deployed):
        with pytest.raises(Fatal, match="start a view worker of this program"):
            await rebuild(deployed.settings, LOUDER_VIEWS, timeout=0, progress=no_progress)
        assert await states(deployed) == {1: "serving", 2: "followed"}
        louder = deployed.start("views", app=LOUDER_APP)
        await made_anew(deployed, LOUDER_VIEWS)
        assert await states(deployed) == {1: "followed", 2: "serving"}
        before = searches.answers
        await wait_until(lambda: searches.answers > before + 3)
    found = await status(deployed, LOUDER_VIEWS)
    assert [one.of_this_program for one in found] == [False, True]
    async with open_queries(deployed.settings) as queries:
        users = [user async for user in all_users_by_email(queries, "example")]
    assert all(user.last_name == user.last_name.upper() for user in users)

    # nobody keeps the former index up to date without a worker of the old program
    former = next(one for one in deployed.of("views") if one is not louder)
    await deployed.retire(former)
    await until_no_worker(deployed, USER_VIEWS)
    with pytest.raises(Fatal, match="start a view worker of the program that created it"):
        await roll_back(deployed.settings, LOUDER_VIEWS, timeout=0, progress=no_progress)
    assert await states(deployed) == {1: "followed", 2: "serving"}
    former.start()
    deployed.workers.append(former)
    assert (await roll_back_now(deployed, LOUDER_VIEWS)).number == 1
    await has_all(deployed)


class RunningRebuild:
    """A `cqrs views rebuild` by two processes, with a request for each document."""

    def __init__(self, deployed: Deployment, process: asyncio.subprocess.Process) -> None:
        self._deployed = deployed
        self.process = process

    async def has_begun(self, written: int) -> bool:
        """Whether the second index was given more documents than this, and the helper runs."""
        return await written_documents(self._deployed) > written and len(self.helpers()) == 1

    def helpers(self) -> list[psutil.Process]:
        """Return the processes that it has started."""
        return [
            one
            for one in psutil.Process(self.process.pid).children()
            if "spawn_main" in " ".join(one.cmdline())
        ]


async def written_documents(deployed: Deployment) -> int:
    """Return how many documents were ever written to the second index."""
    async with connect(deployed.settings, timeout=30) as client:
        found = await client.options(ignore_status=404).indices.stats(
            index=f"{deployed.settings.namespace}user-views-v2", metric="indexing"
        )
    primaries = found.body.get("_all", {}).get("primaries")
    return int(primaries["indexing"]["index_total"]) if primaries else 0


@asynccontextmanager
async def rebuilding(deployed: Deployment) -> AsyncIterator[RunningRebuild]:
    """A rebuild that has begun; it ends with the block, with all its processes."""
    before = await written_documents(deployed)
    process = await asyncio.create_subprocess_exec(
        *cqrs_command("views", "rebuild", "--processes", "2"),
        cwd=ROOT,
        env={**child_environment(deployed.settings), "CQRS_BULK_DOCUMENTS": "1"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        running = RunningRebuild(deployed, process)
        await wait_until(lambda: running.has_begun(before + 20), timeout=60)
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        # every process has the standard error, which ends with the last of them
        await process.communicate()


async def test_a_rebuild_that_was_ended_anyhow_is_done_by_the_next_one(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed, 6000)
    async with rebuilding(deployed) as killed:
        killed.process.kill()
        await killed.process.communicate()
    assert await states(deployed) == {1: "serving", 2: "building"}
    async with rebuilding(deployed) as interrupted:
        os.killpg(interrupted.process.pid, signal.SIGINT)
        _, said = await interrupted.process.communicate()
        assert interrupted.process.returncode == 130
        assert said.splitlines()[-1] == b"cqrs: interrupted"
    async with rebuilding(deployed) as bereft:
        bereft.helpers()[0].kill()
        _, said = await bereft.process.communicate()
        assert bereft.process.returncode == 75
        assert b"cqrs: a helper process ended (SIGKILL): run this again" in said
    assert await states(deployed) == {1: "serving", 2: "building"}
    done = cqrs(deployed.settings, "views", "rebuild", "--processes", "2", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "user-views-v2 now" in done.stdout
    await has_all(deployed)


async def test_an_unfinished_index_of_another_program_is_deleted(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed, 300)
    async with connect(deployed.settings, timeout=30) as client:
        others = ViewIndices.from_settings(deployed.settings, client, LOUDER_VIEWS)
        await others.create(2, {}, followed=False)
    assert (await made_anew(deployed)).number == 3
    assert await states(deployed) == {1: "followed", 3: "serving"}


async def test_a_rebuild_never_changes_the_serving_index(deploy: Deploy) -> None:
    deployed = deploy("commands")
    async with connect(deployed.settings, timeout=30) as client:
        others = ViewIndices.from_settings(deployed.settings, client, LOUDER_VIEWS)
        await others.create(1, {}, followed=False)
        await serve(others, 1)
    worker = deployed.start("views")
    assert await asyncio.to_thread(worker.wait) == 1
    assert "cqrs views rebuild user-views" in worker.log_text.splitlines()[-1]
    await until_no_worker(deployed, USER_VIEWS)
    with pytest.raises(Fatal, match="start a view worker of this program"):
        await rebuild(deployed.settings, USER_VIEWS, timeout=0, progress=no_progress)
    assert await states(deployed) == {1: "serving", 2: "followed"}
    worker.start()
    assert (await made_anew(deployed)).number == 2
    await fill(deployed, 100)


async def test_an_index_that_does_not_add_up_is_never_read(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed, 300)
    loaded = ViewIndices.finish_loading

    async def lose_one(self: ViewIndices, name: str) -> None:
        await loaded(self, name)
        document = await anext(self.store(name).scan())
        await self._client.delete(index=name, id=document["id"], refresh=True)

    monkeypatch.setattr(ViewIndices, "finish_loading", lose_one)
    with pytest.raises(Fatal, match="user-views-v2 is not complete: of partition"):
        await made_anew(deployed)
    assert await states(deployed) == {1: "serving"}
    assert [one.complete for one in await status(deployed)] == [True]
    monkeypatch.undo()
    assert (await made_anew(deployed)).number == 2


async def test_when_a_partition_fails_the_others_stop(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = deploy("commands", "views", partitions=2)
    await fill(deployed, 100)
    at_work, stopped = asyncio.Event(), asyncio.Event()

    async def project(_self: object, _writer: object, records: list[Any]) -> None:
        if records[0].partition == 0:
            await at_work.wait()
            raise Fatal("the first one fails")
        at_work.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    monkeypatch.setattr(Feed, "_project", project)
    with pytest.raises(Fatal, match="the first one fails"):
        await made_anew(deployed)
    assert stopped.is_set()
    assert await states(deployed) == {1: "serving", 2: "building"}


async def test_documents_of_an_unfinished_chunk_are_no_violation(deploy: Deploy) -> None:
    """They are written before the index says that it has them."""
    deployed = deploy("commands", "views", partitions=1)
    await fill(deployed, 100)
    for worker in deployed.of("views"):
        await deployed.retire(worker)
    async with open_traffic(deployed, records_of(generate(50, seed=3))) as traffic:
        traffic.burst(50)
        await traffic.finish()
    async with indices_of(deployed) as indices:
        (state,) = await indices.all()
        store = indices.store(state.name)
        await Projector(store, USER_VIEWS).project(
            0, [record("x", 1, registered("x@y"))], none_refused
        )
        (found,) = await status(deployed)
        assert found.behind
        assert found.complete is None
        lost = [one async for one in store.scan()][:10]
        for document in lost:
            await indices._client.delete(index=state.name, id=document["id"], refresh=True)
    (found,) = await status(deployed)
    assert found.complete is False


async def test_a_deleted_index_is_made_again_and_shown_when_it_is_complete(
    deploy: Deploy,
) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed)
    async with indices_of(deployed) as indices, open_queries(deployed.settings) as queries:
        (lost,) = await indices.all()
        await indices.drop(lost.name)

        async def is_back() -> bool:
            try:
                await queries.execute(GetUserById("nobody"))
            except NoSuchView:
                return False
            return True

        await wait_until(is_back, timeout=60)
        # whoever sees it at all sees all of it
        (made,) = await status(deployed)
        assert made.behind == 0
        (state,) = await indices.all()
        assert state.uuid != lost.uuid
    await has_all(deployed)
    assert "there is no index; making" in deployed.of("views")[0].log_text


async def test_a_rebuild_writes_the_dead_letters_of_its_index(deploy: Deploy) -> None:
    """Whatever has become of those of the workers: here they have expired."""
    deployed = deploy("views", partitions=1)
    await send_events(
        deployed,
        ("anna", encoded(deployed, "anna", 1, registered("anna@example.org"))),
        ("anna", encoded(deployed, "anna", 2, REFUSED_UPDATE)),
        ("carl", b"no event"),
    )
    letters = {(b"anna", b"refused-document"), (b"carl", b"malformed-json")}
    assert (await verify_users(deployed.settings)).known_missing == 1
    assert set(await view_dead_letters(deployed)) == letters
    async with admin_client(deployed.settings) as admin:
        topic = TopicPartition(deployed.names.dead_views, 0)
        await admin.delete_records({topic: RecordsToDelete(-1)})  # all
    found = (await verify_users(deployed.settings)).findings["I4"]
    assert found.first == "the document anna was refused, and no dead letter of the view says so"

    assert (await made_anew(deployed)).number == 2
    report = await verify_users(deployed.settings)
    assert report.findings["I4"].first is None
    assert report.known_missing == 1
    assert set(await view_dead_letters(deployed)) == letters


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "amid commands"])
async def test_an_index_from_an_old_snapshot_gets_what_it_misses(
    deploy: Deploy, idle: bool
) -> None:
    deployed = deploy("commands", "views")
    await fill(deployed, 1000)
    async with indices_of(deployed) as indices:
        client = indices._client
        (state,) = await indices.all()
        async with snapshot(client, state.name) as repository:
            await fill_more(deployed)
            async with open_traffic(
                deployed, records_of(generate(100_000, seed=4)), rate=0.0 if idle else 200.0
            ) as traffic:
                await client.indices.close(index=state.name)
                await client.snapshot.restore(
                    repository=repository,
                    snapshot="first",
                    indices=state.name,
                    wait_for_completion=True,
                )
                await traffic.finish()
            await has_all(deployed)
    for worker in deployed.workers:
        assert worker.is_running


async def test_expired_events_are_an_error_and_no_gap(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=1)
    await fill(deployed, 100)
    async with admin_client(deployed.settings) as admin:
        await admin.delete_records({TopicPartition(deployed.names.events, 0): RecordsToDelete(50)})
    with pytest.raises(Fatal, match="begins at 50: the events before are gone"):
        await made_anew(deployed)
    async with indices_of(deployed) as indices:
        for state in await indices.all():
            await indices.drop(state.name)
    (worker,) = deployed.of("views")
    assert worker.wait() == 1
    assert "50 positions expired before they were projected" in worker.log_text
