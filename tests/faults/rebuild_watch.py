"""A rebuild as seen from outside: how it loads, how the alias moves, how far the view lags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment
from deploy.waiting import Turns, wait_until
from streams.elasticsearch.connection import translating
from streams.views.indices import ViewIndices
from tests.harness.view_position import ViewPositions

_SEARCH_INTERVAL_S = 0.01
_LOADING_TIMEOUT_S = 3600.0


class IndexLoading:
    """Watches a rebuild while it loads the second index of a view."""

    def __init__(self, client: AsyncElasticsearch, deployed: Deployment) -> None:
        self._client = client
        self._indices = ViewIndices.from_settings(deployed.settings, client, USER_VIEWS)
        self._name = f"{self._indices.alias}-v2"
        self._samples: list[tuple[float, int]] = []

    async def documents(self) -> int:
        """Return the number of documents that were written, refreshed or not."""
        with translating(self._client):
            found = await self._client.options(ignore_status=404).indices.stats(
                index=self._name, metric="indexing"
            )
        if found.meta.status == 404 or not found["_all"]["primaries"]:  # it is being created
            return 0
        return int(found["_all"]["primaries"]["indexing"]["index_total"])

    async def is_loading(self) -> bool:
        """Return whether the rebuild is loading the index, and workers do not follow it yet."""
        states = {state.name: state.state for state in await self._indices.all()}
        return states.get(self._name) == "building"

    async def watch(self, say: Callable[[int], None]) -> None:
        """Sample until it is loaded, and pass the number of documents to `say` each time."""

        async def is_loaded() -> bool:
            if not await self.is_loading():
                return True
            documents = await self.documents()
            self._samples.append((time.monotonic(), documents))
            say(documents)
            return False

        await wait_until(is_loaded, timeout=_LOADING_TIMEOUT_S, what="the new index is loaded")

    def per_second(self) -> int:
        """Return the documents written per second, between the first and the last change."""
        first, last = self._samples[0][1], self._samples[-1][1]
        begin = max(at for at, documents in self._samples if documents == first)
        end = min(at for at, documents in self._samples if documents == last)
        return round((last - first) / (end - begin)) if end > begin else 0


class AliasSwaps:
    """Measures how long searches see no index while the alias moves to another one."""

    def __init__(self, client: AsyncElasticsearch, deployed: Deployment) -> None:
        self._client = client
        self._alias = deployed.settings.namespace + USER_VIEWS.name
        self.seconds: list[float] = []
        """For each swap: from the last response of one index to the first of the other."""

    async def watch(self, done: asyncio.Event) -> None:
        """Search until `done` is set."""
        before, last_seen = None, 0.0
        async for _ in Turns(_SEARCH_INTERVAL_S):
            if done.is_set():
                return
            with translating(self._client):
                found = await self._client.search(
                    index=self._alias, size=1, source=False, filter_path="hits.hits._index"
                )
            index, now = found["hits"]["hits"][0]["_index"], time.monotonic()
            if before not in (None, index):
                self.seconds.append(now - last_seen)
            before, last_seen = index, now


class ViewLag:
    """Measures how long it takes until the view has all events that exist at a time."""

    def __init__(self, view: ViewPositions) -> None:
        self._view = view
        self.longest = 0.0
        """Seconds."""

    async def watch(self, done: asyncio.Event) -> None:
        """Measure until `done` is set."""
        while not done.is_set():
            begin = time.monotonic()
            await self._view.catch_up()
            self.longest = max(self.longest, time.monotonic() - begin)
