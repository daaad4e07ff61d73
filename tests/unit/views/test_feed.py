"""How a feed waits, and what one partition does to the others; the rest is on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import async_timeout
import pytest
from aiokafka.structs import TopicPartition

from deploy.waiting import wait_until
from models.errors import PartitionFatal, Transient
from streams.settings import Settings
from streams.views import feed as feeding
from streams.views.checkpoint import Checkpoint
from streams.views.feed import Feed


class Silent:
    """A consumer whose broker is away: aiokafka raises nothing then."""

    stall_timeout_s = 0.0

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    def seek(self, _tp: TopicPartition, position: int) -> None: ...

    def pause(self, _tp: TopicPartition) -> None: ...

    def resume(self, _tp: TopicPartition) -> None: ...

    async def getmany(self, *_: Any, **__: Any) -> dict[Any, Any]:
        await asyncio.sleep(0)
        return {}


class Writer:
    """A writer whose index has everything before position 3."""

    checkpoint = Checkpoint(position=3)

    def __init__(self, failures: int = 0) -> None:
        self.starts = 0
        self._failures = failures

    async def start(self) -> int:
        self.starts += 1
        if self.starts <= self._failures:
            raise PartitionFatal("do this")
        return self.checkpoint.position


async def test_a_load_that_hears_nothing_ends() -> None:
    feed = Feed[Any](Settings(), "users.events.v1", cast(Any, None), {1: cast(Any, Writer())})
    with pytest.raises(Transient, match=r"v1\[1\]: nothing came after position 3 for 0 s"):
        await feed._partition(cast(Any, Silent()), 1, 4, lambda _: None)


class Followed(Feed[Any]):
    """A feed whose broker has no events."""

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Any]:
        yield Silent()


async def test_a_partition_that_cannot_continue_is_tried_again_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeding, "_PARKED_RETRY_S", 0.0)
    ill, well, said = Writer(failures=2), Writer(), list[str]()
    writers = {0: cast(Any, ill), 1: cast(Any, well)}
    feed = Followed(Settings(), "users.events.v1", cast(Any, None), writers)
    following = asyncio.create_task(feed.follow(lambda error: said.append(str(error))))
    async with async_timeout.timeout(30):
        await wait_until(lambda: ill.starts == 3)
    assert (said, well.starts, following.done()) == (["do this", "do this"], 1, False)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
