"""Read your writes: a query with a token waits until the view shows the token's writes.

The checkpoints of the index tell how far the view is (`ViewReader.checkpoints`), before any
refresh. That is enough for reading a document by its id. A search sees only what was written before
a refresh, so it also needs one that began after the checkpoints had passed the token. All queries
that wait in this process share the reads and refreshes; without waiting queries there are none.

All of that has to be answered by one node of Elasticsearch: another one may be cut off, and then it
answers of what it had when it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import async_timeout
from elastic_transport import NodeConfig

from models.errors import InvalidToken, Transient, ViewBehind
from models.tokens import Point, Token
from streams import metrics
from streams.concurrency import Coalesced
from streams.kafka.partitioner import partition_of
from streams.views.asked_nodes import noting_nodes
from streams.views.checkpoint import IndexCheckpoints
from streams.views.reader import ViewReader

R = TypeVar("R")

# Minimum interval between two reads of the checkpoints, and between two refreshes, in this process.
# A refresh costs Elasticsearch several times as much as anything else that a query needs, so after
# each one comes a rest of the same length, too: a busy server has more queries wait for each.
_READ_INTERVAL_S = 0.005
_REFRESH_INTERVAL_S = 0.02

# How long a refresh is remembered, so that a session's token costs one refresh, not one per query.
# Short, because an index may be deleted and created again under the same name.
_REFRESH_VALID_S = 1.0

# How long a node may show the same checkpoints, and not the write that is waited for, before
# another one is asked: at first, and if nothing changes there either.
_FIRST_NODE_INTERVAL_S = 1.0
_MAX_NODE_INTERVAL_S = 30.0

# Pause of one query between two checks: a quarter of the time that it has waited, within bounds.
_PAUSE_PER_WAIT = 0.25
_MIN_PAUSE_S = 0.005
_MAX_PAUSE_S = 0.05


class ReadYourWrites:
    """Lets queries of one view wait for tokens; see `QueryBus.register`."""

    def __init__(self, view: ViewReader, topic: str, partitions: int) -> None:
        """Create it for one view.

        Args:
            view: The view.
            topic: Topic of the commands whose events the view shows.
            partitions: Number of partitions of that topic.
        """
        self._view = view
        self._topic = topic
        self._partitions = partitions
        self._checkpoints = Coalesced(self._read_checkpoints, min_interval=_READ_INTERVAL_S)
        self._refresh = Coalesced(self._refresh_now, min_interval=_REFRESH_INTERVAL_S, rests=True)
        self._last_read: IndexCheckpoints | None = None
        self._refreshed: IndexCheckpoints | None = None
        self._refreshed_at = 0.0
        self._read_at = self._changed_at = 0.0
        self._node_interval = _FIRST_NODE_INTERVAL_S
        self._failure: Transient | None = None

    async def once_projected(
        self, token: Token, timeout: float, query: Callable[[], Awaitable[R]]
    ) -> R:
        """Run a query by document id once the view has the token's writes, and return its result.

        The query runs again if the alias moved meanwhile to an index without the writes.

        Raises:
            InvalidToken: The token is not of this view.
            ViewBehind: The view did not show the writes within `timeout` seconds, for any reason.
            NoSuchView: There is no such view.
            Exception: What `query` raises.
        """
        with _timed():
            return await self._run_once(self._if_projected, token, timeout, query)

    async def once_searchable(
        self, token: Token, timeout: float, query: Callable[[], Awaitable[R]]
    ) -> R:
        """Run a search once it sees the token's writes; otherwise like `once_projected`."""
        with _timed():
            return await self._run_once(self._if_searchable, token, timeout, query)

    async def _run_once(
        self,
        check: Callable[[Token], Awaitable[IndexCheckpoints | None]],
        token: Token,
        timeout: float,
        query: Callable[[], Awaitable[R]],
    ) -> R:
        self._validate(token)
        deadline = time.monotonic() + timeout
        while True:
            try:
                async with async_timeout.timeout(deadline - time.monotonic()):
                    serving = await self._poll(check, token)
            except asyncio.TimeoutError:
                raise self._view_behind(token, timeout) from None
            with noting_nodes() as nodes:
                result = await query()
            # Meanwhile the alias may have moved to another index, which may not be as far.
            after = await self._checkpoints()
            asked = {serving.node, *nodes, after.node}
            if after.name == serving.name and len(asked) == 1 and _has(after, token):
                return result

    async def _poll(
        self, check: Callable[[Token], Awaitable[IndexCheckpoints | None]], token: Token
    ) -> IndexCheckpoints:
        """Repeat a check until it succeeds, through outages of Elasticsearch, too."""
        began = time.monotonic()
        while True:
            try:
                serving = await check(token)
            except Transient as failure:
                self._failure = failure
            else:
                self._failure = None
                if serving is not None:
                    return serving
            pause = _PAUSE_PER_WAIT * (time.monotonic() - began)
            await asyncio.sleep(min(max(pause, _MIN_PAUSE_S), _MAX_PAUSE_S))

    async def _if_projected(self, token: Token) -> IndexCheckpoints | None:
        """Return the serving index if it has the token's writes."""
        serving = await self._checkpoints()
        clusters = {checkpoint.cluster for checkpoint in serving.checkpoints.values()} - {""}
        if clusters and token.cluster not in clusters:
            raise InvalidToken("the token is of another Kafka cluster than the view's events")
        if _has(serving, token):
            return serving
        self._leave_frozen_node()
        return None

    async def _if_searchable(self, token: Token) -> IndexCheckpoints | None:
        """Return the serving index if it has the token's writes, after searches see them."""
        serving = await self._if_projected(token)
        if serving is None or self._is_refreshed(serving, token):
            return serving
        node = await self._refresh()
        return serving if node == serving.node else None

    def _is_refreshed(self, serving: IndexCheckpoints, token: Token) -> bool:
        refreshed = self._refreshed
        return (
            refreshed is not None
            and (refreshed.name, refreshed.node) == (serving.name, serving.node)
            and time.monotonic() - self._refreshed_at < _REFRESH_VALID_S
            and _has(refreshed, token)
        )

    async def _read_checkpoints(self) -> IndexCheckpoints:
        found = await self._view.checkpoints(range(self._partitions))
        self._read_at = time.monotonic()
        if self._last_read is None or self._last_read.checkpoints != found.checkpoints:
            self._changed_at, self._node_interval = self._read_at, _FIRST_NODE_INTERVAL_S
        self._last_read = found
        return found

    def _leave_frozen_node(self) -> None:
        """Ask another node if this one has shown the same checkpoints for a while.

        It may be cut off. If it is the workers that stand still, another node changes nothing; so
        that is tried ever more rarely.
        """
        if self._read_at - self._changed_at > self._node_interval:
            self._changed_at = self._read_at
            self._node_interval = min(2 * self._node_interval, _MAX_NODE_INTERVAL_S)
            self._view.ask_another_node(self._view.node)

    async def _refresh_now(self) -> NodeConfig | None:
        """Refresh, and return the node that was asked."""
        before, began = self._last_read, time.monotonic()
        with noting_nodes() as nodes:
            await self._view.refresh()
        node = next(iter(nodes), None)
        if before is not None and before.node == node:
            self._refreshed, self._refreshed_at = before, began
        return node

    def _validate(self, token: Token) -> None:
        for point in token.points:
            if point.topic != self._topic:
                raise InvalidToken(
                    "the token is of a command on another topic: this view shows those of "
                    f"{self._topic}"
                )
            if point.partition != partition_of(point.aggregate_id.encode(), self._partitions):
                raise InvalidToken(
                    "the token names a partition where its command cannot be, if there are "
                    f"{self._partitions} of them (CQRS_PARTITIONS)"
                )

    def _view_behind(self, token: Token, timeout: float) -> ViewBehind:
        written = "The write succeeded, but"
        seen = self._last_read
        if seen is None or self._failure is not None:
            why = self._failure or "no response"
            return ViewBehind(f"{written} the view could not be asked in {timeout:g} s: {why}")
        behind, number = max(
            (point.offset - seen.checkpoints[point.partition].command_offset, point.partition)
            for point in token.points
        )
        if _has(seen, token):
            return ViewBehind(f"{written} searches could not see it in {timeout:g} s: ask again")
        return ViewBehind(
            f"{written} the view did not show it in {timeout:g} s: it is {behind:,} positions "
            f"behind in partition {number} of {self._topic}. Ask again with the same token; is a "
            "view worker running, and what does its log say?"
        )


@contextmanager
def _timed() -> Iterator[None]:
    began = time.perf_counter()
    result = "failed"
    try:
        yield
        result = "seen"
    except ViewBehind:
        result = "behind"
        raise
    finally:
        metrics.TOKEN_WAIT_SECONDS.labels(result).observe(time.perf_counter() - began)


def _has(serving: IndexCheckpoints, token: Token) -> bool:
    return all(_has_point(serving, point) for point in token.points)


def _has_point(serving: IndexCheckpoints, point: Point) -> bool:
    """Return whether all events of the command are in the index, not only the first of them."""
    checkpoint = serving.checkpoints[point.partition]
    return (checkpoint.command_offset, checkpoint.sequence) >= (point.offset, point.sequence)
