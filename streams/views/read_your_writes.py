"""Read your writes: a query that was given a token waits until the view has what it stands for.

The view's index says how far it is (`ViewStore.serving`), refreshed or not. That is enough for who
reads documents by their id. A search sees what was written before a refresh: one that began when
the view had it. Looks and refreshes are shared by all queries that wait in this process, and
neither happens when none does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from models.errors import InvalidToken, Transient, ViewBehind
from models.tokens import Point, Token
from streams.concurrency import Coalesced
from streams.kafka.partitioner import partition_of
from streams.views.checkpoint import IndexCheckpoints
from streams.views.store import ViewStore

R = TypeVar("R")

# Seconds between two looks or two refreshes of this process, at least. A search that waits pays
# half of the latter on average, and an index is refreshed no more than 20 times per second for it.
_LOOKS_APART = 0.01
_REFRESHES_APART = 0.05

# Seconds for which a refresh of this process is remembered, so that a session's token costs one
# and not one per query. It is short, for an index may be made anew under the same name.
_REMEMBERED = 1.0

# Seconds that one query waits between two looks: the first time, and at most.
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.05


class ReadYourWrites:
    """What has to hold before a query about one view is answered; see `QueryBus.register`."""

    def __init__(self, store: ViewStore, topic: str, partitions: int) -> None:
        """A view of what comes of the commands of `topic`, which has so many partitions."""
        self._store = store
        self._topic = topic
        self._partitions = partitions
        self._look = Coalesced(self._look_now, min_interval=_LOOKS_APART)
        self._refresh = Coalesced(self._refresh_now, min_interval=_REFRESHES_APART)
        self._seen: IndexCheckpoints | None = None
        self._refreshed: IndexCheckpoints | None = None
        self._refreshed_at = 0.0
        self._failure: Transient | None = None

    async def once_projected(
        self, token: Token, timeout: float, answer: Callable[[], Awaitable[R]]
    ) -> R:
        """The answer, from documents that are as new as the token says or newer.

        Raises:
            InvalidToken: The token is not of this view.
            ViewBehind: It took longer than `timeout` seconds, whatever the reason.
            NoSuchView: There is no such view.
        """
        return await self._answer(token, timeout, answer, self._if_written)

    async def once_searchable(
        self, token: Token, timeout: float, answer: Callable[[], Awaitable[R]]
    ) -> R:
        """The same for an answer from a search."""
        return await self._answer(token, timeout, answer, self._if_searchable)

    async def _answer(
        self,
        token: Token,
        timeout: float,
        answer: Callable[[], Awaitable[R]],
        look: Callable[[Token], Awaitable[IndexCheckpoints | None]],
    ) -> R:
        self._check(token)
        deadline = time.monotonic() + timeout
        while True:
            waiting = self._until(look, token)
            try:
                serving = await asyncio.wait_for(waiting, deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise self._late(token, timeout) from None
            answered = await answer()
            # Another index may have taken its place meanwhile, and may not be as far.
            after = await self._look()
            if after.name == serving.name and _has(after, token):
                return answered

    async def _until(
        self, look: Callable[[Token], Awaitable[IndexCheckpoints | None]], token: Token
    ) -> IndexCheckpoints:
        """The first thing that `look` finds. An Elasticsearch that is away is waited for, too."""
        pause = _FIRST_PAUSE
        while True:
            try:
                serving = await look(token)
            except Transient as failure:
                self._failure = failure
            else:
                self._failure = None
                if serving is not None:
                    return serving
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _if_written(self, token: Token) -> IndexCheckpoints | None:
        """The index, if it has what the token says."""
        serving = await self._look()
        clusters = {progress.cluster for progress in serving.checkpoints.values()} - {""}
        if clusters and token.cluster not in clusters:
            raise InvalidToken("the token is of another Kafka cluster than the view's events")
        return serving if _has(serving, token) else None

    async def _if_searchable(self, token: Token) -> IndexCheckpoints | None:
        """The index, if it has that, and then searches see it."""
        serving = await self._if_written(token)
        if serving is not None and not self._is_refreshed(serving.name, token):
            await self._refresh()
        return serving

    def _is_refreshed(self, name: str, token: Token) -> bool:
        known = self._refreshed
        return (
            known is not None
            and known.name == name
            and time.monotonic() - self._refreshed_at < _REMEMBERED
            and _has(known, token)
        )

    async def _look_now(self) -> IndexCheckpoints:
        self._seen = await self._store.checkpoints(range(self._partitions))
        return self._seen

    async def _refresh_now(self) -> None:
        seen, began = self._seen, time.monotonic()
        await self._store.refresh()
        self._refreshed, self._refreshed_at = seen, began

    def _check(self, token: Token) -> None:
        for point in token.points:
            if point.topic != self._topic:
                raise InvalidToken(
                    f"the token is of a command on another topic than {self._topic}, "
                    "of which this view is"
                )
            if point.partition != partition_of(point.aggregate_id.encode(), self._partitions):
                raise InvalidToken(
                    f"the token names a partition where its command cannot lie, if there are "
                    f"{self._partitions} of them (CQRS_PARTITIONS)"
                )

    def _late(self, token: Token, timeout: float) -> ViewBehind:
        written = "The write succeeded, but"
        if self._seen is None or self._failure is not None:
            why = self._failure or "no answer"
            return ViewBehind(f"{written} the view could not be asked in {timeout:g} s: {why}")
        behind, number = max(
            (point.offset - self._seen.checkpoints[point.partition].command_offset, point.partition)
            for point in token.points
        )
        if _has(self._seen, token):
            return ViewBehind(f"{written} searches could not see it in {timeout:g} s: ask again")
        return ViewBehind(
            f"{written} the view did not show it in {timeout:g} s: it is {behind:,} positions "
            f"behind in partition {number} of {self._topic}. Ask again with the same token; is a "
            "view worker running, and what does its log say?"
        )


def _has(serving: IndexCheckpoints, token: Token) -> bool:
    return all(_has_point(serving, point) for point in token.points)


def _has_point(serving: IndexCheckpoints, point: Point) -> bool:
    """Whether all events of the command are in the index; the last one it has may be amid them."""
    progress = serving.checkpoints[point.partition]
    return (progress.command_offset, progress.sequence) >= (point.offset, point.sequence)
