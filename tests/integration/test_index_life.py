"""What people do to the indices of a view: no query is answered from half a view, or from two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from elasticsearch import AsyncElasticsearch

from agents.client import open_commands, open_queries
from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.errors import Fatal, NoSuchView, Transient
from models.queries import GetNewUsers
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import CHECKPOINT
from streams.kafka.partitioner import partition_of
from streams.progress import no_progress
from streams.settings import Settings
from streams.views import rebuild as rebuilding
from streams.views.checkpoint import checkpoint_id
from streams.views.cutover import prunable, prune, roll_back
from streams.views.indices import ViewIndices
from streams.views.reader import ViewReader, open_view
from streams.views.situation import IndexState
from streams.views.source import event_log
from streams.views.status import IndexStatus, status_of
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.deployments import create_again
from tests.harness.read_side import (
    encoded,
    registered,
    send_events,
    snapshot,
    view_dead_letters,
)
from tests.harness.users import register


class View:
    """A view with a worker that projects events which the test sends."""

    def __init__(self, deployed: Deployment, client: AsyncElasticsearch) -> None:
        self.deployed = deployed
        self.client = client
        self.indices = ViewIndices.from_settings(deployed.settings, client, USER_VIEWS)
        self.users = 0

    def name(self, number: int) -> str:
        return f"{self.indices.alias}-v{number}"

    async def register(self, users: int = 5) -> None:
        first, self.users = self.users, self.users + users
        names = [f"user-{number}" for number in range(first, self.users)]
        await send_events(
            self.deployed,
            *((one, encoded(self.deployed, one, 1, registered(f"{one}@x.org"))) for one in names),
        )

    async def has_all(self) -> None:
        """Wait until queries find every user, once."""

        async def found() -> bool:
            async with open_view(self.deployed.settings, USER_VIEWS, timeout=30) as store:
                try:
                    await store.refresh()
                    hits = await store.search({"exists": {"field": "id"}}, sort=["id"], limit=1000)
                except (NoSuchView, Transient):
                    return False
                return len(hits) == self.users

        await wait_until(found, timeout=60)

    async def is_level(self) -> bool:
        return all(index.behind == 0 for index in await self.status())

    async def states(self) -> dict[int, str]:
        return {state.number: state.state for state in await self.indices.all()}

    async def status(self, *, check: bool = False) -> list[IndexStatus]:
        return await status_of(
            self.deployed.settings, USER_VIEWS, check=check, progress=no_progress
        )

    async def rebuild(self, *, timeout: float = 60, abandon_serving: bool = False) -> IndexState:
        return await rebuilding.rebuild(
            self.deployed.settings,
            USER_VIEWS,
            timeout=timeout,
            progress=no_progress,
            abandon_serving=abandon_serving,
        )

    def log(self) -> str:
        (worker,) = self.deployed.of("views")
        return worker.log_text

    async def says(self, text: str, after: int = 0) -> None:
        """Wait until the worker logs a text, behind the first `after` characters of its log."""
        await wait_until(lambda: text in self.log()[after:], timeout=60)

    async def put(self, number: int, **settings: object) -> None:
        changed = {f"index.{name.replace('__', '.')}": value for name, value in settings.items()}
        await self.client.indices.put_settings(index=self.name(number), settings=changed)


@asynccontextmanager
async def view_of(deployed: Deployment) -> AsyncIterator[View]:
    async with connect(deployed.settings, timeout=30) as client:
        yield View(deployed, client)


async def test_an_index_adds_up_while_a_worker_writes_to_it(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with view_of(deploy("views", partitions=1)) as view:
        await view.register()
        await view.has_all()
        refresh = ViewReader.refresh

        async def refresh_later(self: ViewReader) -> None:
            monkeypatch.setattr(ViewReader, "refresh", refresh)
            await view.register()
            await view.has_all()
            await wait_until(view.is_level)  # a checkpoint follows the documents
            await refresh(self)

        monkeypatch.setattr(ViewReader, "refresh", refresh_later)
        (index,) = await view.status(check=True)
        assert index.complete is True
        assert view.users == 10


async def test_indices_that_are_closed_ill_and_lost(deploy: Deploy) -> None:
    async with view_of(deploy("views", partitions=1)) as view:
        await view.register()
        await view.has_all()
        assert (await view.rebuild()).number == 2

        # a former index that is read-only holds up nobody, and gets all when it is mended
        await view.put(1, blocks__write=True)
        for _ in range(3):
            await view.register()
            await view.has_all()
        await view.put(1, blocks__write=None)

        async def former_has_all() -> bool:
            return [one.behind for one in await view.status()] == [0, 0]

        await wait_until(former_has_all, timeout=60)

        # a closed former index is seen, and deleted
        await view.client.indices.close(index=view.name(1))
        former, serving = await view.status()
        assert (former.trouble, former.behind) == ("closed: open it", None)
        assert serving.trouble is None
        assert await prunable(view.deployed.settings, USER_VIEWS) == [view.name(1)]
        await prune(view.deployed.settings, USER_VIEWS, [view.name(1)])
        assert await view.states() == {2: "serving"}

        # a closed serving index is waited for: no other one is made
        logged = len(view.log())
        await view.client.indices.close(index=view.name(2))
        await view.register()
        await view.says("Projecting waits: ", after=logged)
        assert await view.states() == {2: "serving"}
        shown = cqrs(view.deployed.settings, "views", "status")
        assert shown.returncode == 1
        assert "closed" in shown.stdout
        with pytest.raises(Fatal, match="is closed: open it.*--abandon-serving"):
            await view.rebuild()
        await view.client.indices.open(index=view.name(2))
        await view.has_all()

        # one that is lost is given up by a command
        await view.client.indices.close(index=view.name(2))
        assert (await view.rebuild(abandon_serving=True)).number == 3
        await view.has_all()


async def test_a_damaged_partition_of_a_former_index_holds_up_no_other(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=2)
    async with view_of(deployed) as view, open_commands(deployed.settings) as commands:

        async def decide(users: Sequence[str]) -> None:
            await asyncio.gather(*(commands.dispatch(register(user)) for user in users))
            view.users += len(users)
            await view.has_all()

        await decide([f"early-{number}" for number in range(5)])
        assert (await view.rebuild()).number == 2
        await view.says("the indices have changed; starting again")
        await decide([f"then-{number}" for number in range(5)])  # for those who read, by now
        await wait_until(view.is_level, timeout=60)
        await view.client.index(
            index=view.name(1), id=checkpoint_id(0), document={CHECKPOINT: "damaged"}
        )
        await decide([f"noticing-{number}" for number in range(20)])
        await view.says(f"{view.name(1)} is not kept up to date, trying again: The document")
        late = [f"late-{number}" for number in range(20)]
        await decide(late)
        fine = [user for user in late if partition_of(user.encode(), 2) == 1]

        async def former_has_them() -> bool:
            found = await view.client.mget(index=view.name(1), ids=fine)
            return all(one["found"] for one in found["docs"])

        await wait_until(former_has_them, timeout=60)


async def test_aliases_and_settings_that_are_not_ours(deploy: Deploy) -> None:
    async with view_of(deploy("views", partitions=1)) as view:
        await view.register()
        await view.has_all()
        first, client = view.name(1), view.client

        # taken away: all that a snapshot restores without aliases lacks
        for alias in (f"{first}-writes", view.indices.alias, f"{view.indices.alias}-followed"):
            await client.indices.delete_alias(index=first, name=alias)
        await view.register()
        await view.has_all()

        # on another index as well, as a snapshot that is restored beside brings them
        beside = f"restored-{first}"
        aliases: dict[str, dict[str, str]] = {view.indices.alias: {}, f"{first}-writes": {}}
        await client.indices.create(index=beside, aliases=aliases)
        await view.says(f"took the aliases {first}-writes from {beside}")

        async def has_none() -> bool:
            return not (await client.indices.get_alias(index=beside))[beside]["aliases"]

        await wait_until(has_none, timeout=60)  # a search of both is an error
        await view.register()
        await view.has_all()
        await client.indices.delete(index=beside)

        # a copy that has the view's next name: it writes nothing of the first one's, and follows
        second = view.name(2)
        async with snapshot(client, first) as repository:
            await client.snapshot.restore(
                repository=repository,
                snapshot="first",
                indices=first,
                rename_pattern="(.+)-v1",
                rename_replacement="$1-v2",
                wait_for_completion=True,
            )

        async def has_its_own() -> bool:
            aliases = set((await client.indices.get_alias(index=second))[second]["aliases"])
            bearers = await client.indices.get_alias(name=view.indices.alias)
            has_theirs = any(first in alias for alias in aliases)
            return f"{second}-writes" in aliases and not has_theirs and len(bearers) == 1

        await wait_until(has_its_own, timeout=60)
        await view.register()
        await view.has_all()
        assert sorted((await view.states()).values()) == ["followed", "serving"]
        await wait_until(view.is_level, timeout=60)
        await client.indices.delete(index=second)

        # a pipeline that is not there says nothing about a document
        await view.put(1, default_pipeline="not-there")
        await view.register(20)
        await view.says("pipeline with id [not-there] does not exist")
        await view.put(1, default_pipeline="_none")
        await view.has_all()
        assert await view_dead_letters(view.deployed) == []


async def test_a_rebuild_shows_no_half_view(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def has_workers(*_: object) -> bool:
        return True

    monkeypatch.setattr(rebuilding, "has_workers", has_workers)
    async with view_of(deploy(partitions=2)) as view:
        log = await event_log(view.deployed.settings, USER_VIEWS)
        await view.indices.create(1, {0: 10, 1: 0}, followed=True, log=log)  # as a worker does
        with pytest.raises(Fatal, match="user-views-v1 does not have all events yet"):
            await view.rebuild(timeout=0)
        assert await view.states() == {1: "followed"}


async def test_the_number_of_partitions_is_that_of_the_topics(deploy: Deploy) -> None:
    settings = deploy(partitions=2).settings.model_copy(update={"partitions": 1})
    for asking in asking_everything(settings):
        with pytest.raises(Fatal, match="has 2 partitions, CQRS_PARTITIONS says 1"):
            await asking


def asking_everything(settings: Settings) -> list[Coroutine[Any, Any, object]]:
    """What the commands do that read the event topic."""
    return [
        status_of(settings, USER_VIEWS, check=False, progress=no_progress),
        rebuilding.rebuild(settings, USER_VIEWS, timeout=0, progress=no_progress),
        roll_back(settings, USER_VIEWS, timeout=0, progress=no_progress),
    ]


async def test_an_event_topic_that_was_created_again_is_noticed(deploy: Deploy) -> None:
    deployed = deploy("views", partitions=1)
    async with view_of(deployed) as view:
        await view.register()
        await view.has_all()
        (worker,) = deployed.of("views")
        await deployed.retire(worker)
        await create_again(deployed.settings, deployed.names.events)
        view.users = 0
        await view.register(2)
        async with open_queries(deployed.settings) as queries:
            with pytest.raises(Transient, match="has the events of a topic that was deleted"):
                await queries.execute(GetNewUsers())
        worker.start()
        assert worker.wait() == 1
        assert "was deleted and created again" in worker.log_text.splitlines()[-1]
        with suppress(Fatal):  # no worker follows it, unless the group has not noticed that yet
            await view.rebuild(timeout=0)
        deployed.workers.append(worker)
        worker.start()
        if (await view.states())[2] != "serving":
            assert (await view.rebuild()).number == 2
        await view.has_all()


async def test_missing_topics_are_named(deploy: Deploy) -> None:
    settings = deploy(partitions=1).settings.model_copy(update={"namespace": "mistyped-"})
    for asking in asking_everything(settings):
        with pytest.raises(Fatal, match="missing topics: mistyped-users.commands.v1"):
            await asking


async def test_rolling_back_needs_a_former_index(deploy: Deploy) -> None:
    settings = deploy(partitions=1).settings
    with pytest.raises(
        Fatal, match="nothing to roll back to: no other index of user-views was served"
    ):
        await roll_back(settings, USER_VIEWS, timeout=0, progress=no_progress)
