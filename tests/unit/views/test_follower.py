"""A worker that looks at the indices again and again, whatever Elasticsearch answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.user_views import USER_VIEWS
from models.errors import Fatal, Transient
from streams.kafka.refusal import Unreachable
from streams.settings import Settings
from streams.views import follower as following
from streams.views import wiring
from streams.views.checkpoint import Checkpoint, IndexChanged
from streams.views.follower import ViewFollower
from streams.views.situation import EventLog, IndexState, Situation

LOG = EventLog("cluster", "topic", 1)
SITUATION = Situation("user-views", "views", "user-views", USER_VIEWS.definition, LOG)


async def no_restart(_: Collection[int]) -> None:
    raise AssertionError


class Indices:
    """Answers one look after the other; what is an error is raised."""

    alias = "user-views"

    def __init__(self, *answers: Situation | Exception) -> None:
        self._answers = list(answers)
        self.starting: list[bool] = []
        self.done = asyncio.Event()

    async def look(self, _: EventLog, *, starting: bool) -> Situation:
        self.starting.append(starting)
        if not self._answers:
            self.done.set()
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def create(self, *_: Any, **__: Any) -> bool:
        return True


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Indices], ViewFollower[Any]]:
    monkeypatch.setattr(following, "_CHECK_INTERVAL_S", 0)
    monkeypatch.setattr(following, "_CHECK_INTERVAL_UNTIL_SERVING_S", 0)

    async def positions() -> dict[int, int]:
        return {0: 0}

    def new(indices: Indices) -> ViewFollower[Any]:
        nothing = cast(Any, None)
        follower = ViewFollower(
            Settings(), nothing, USER_VIEWS, LOG, "events", nothing, nothing, positions
        )
        monkeypatch.setattr(follower, "_indices", indices)
        lead = SimpleNamespace(checkpoint=Checkpoint())
        monkeypatch.setattr(follower, "_leads", {0: (("user-views-v1", "uuid"), lead)})
        return follower

    return new


async def test_an_outage_is_waited_for(follow: Callable[[Indices], ViewFollower[Any]]) -> None:
    """Also one of the name service: only the first look takes that for a mistake."""
    indices = Indices(SITUATION, Transient("away"), IndexChanged("by somebody"), Transient("away"))
    follower = follow(indices)
    watching = asyncio.create_task(follower.watch(no_restart))
    await asyncio.wait_for(indices.done.wait(), 10)
    assert follower.is_waiting
    assert not watching.done()
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert indices.starting == [True, False, False, False, False]


async def test_what_is_refused_ends_the_worker(
    follow: Callable[[Indices], ViewFollower[Any]],
) -> None:
    follower = follow(Indices(Situation("v", "views", "v", "this", LOG, is_index=True)))
    with pytest.raises(Fatal, match="an index is called v"):
        await follower.watch(no_restart)


async def test_a_worker_without_partitions_feeds_no_index(
    follow: Callable[[Indices], ViewFollower[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance may take them all while the feed of the former ones ends."""
    follower = follow(Indices())
    other = IndexState("user-views-v1", 1, "uuid-1", "another definition")
    fed: list[Collection[int]] = []

    async def feed(_: IndexState, partitions: Collection[int]) -> None:
        fed.append(partitions)
        try:
            await asyncio.Event().wait()
        finally:
            follower._leads.clear()

    monkeypatch.setattr(follower, "_feed", feed)
    await follower._feed_others([other])
    await asyncio.sleep(0)
    follower._leads[1] = follower._leads[0]
    await follower._feed_others([other])
    await asyncio.sleep(0)
    assert fed == [{0}]
    assert follower._feeds == {}


async def test_an_index_is_made_when_kafka_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its positions are asked for with new connections; that none is taken ends no worker."""

    async def away(*_: object) -> None:
        raise Unreachable("Kafka does not answer")

    monkeypatch.setattr(wiring, "last_positions", away)
    app = cast(Any, SimpleNamespace(settings=Settings()))
    with pytest.raises(Transient, match="Kafka does not answer"):
        await wiring._ViewWorker(app, USER_VIEWS)._last_positions()
