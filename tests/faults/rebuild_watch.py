"""What a rebuild looks like from outside: how it loads, how it swaps, and how old the view gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from streams.elasticsearch.connection import translating
from streams.views.indices import ViewIndices
from tests.harness.view_position import ViewProgress

_SEARCH_INTERVAL_S = 0.01
_LOADING_TIMEOUT_S = 3600.0


class Loading:
    """The second index of a view, while a rebuild makes it."""

    def __init__(self, client: AsyncElasticsearch, deployed: Deployment) -> None:
        self._client = client
        self._indices = ViewIndices.from_settings(deployed.settings, client, USER_VIEWS)
        self._name = f"{self._indices.alias}-v2"
        self._samples: list[tuple[float, int]] = []

    async def documents(self) -> int:
        """How many were written, refreshed or not."""
        with translating(self._client):
            found = await self._client.options(ignore_status=404).indices.stats(
                index=self._name, metric="indexing"
            )
        if found.meta.status == 404 or not found["_all"]["primaries"]:  # it is just being made
            return 0
        return int(found["_all"]["primaries"]["indexing"]["index_total"])

    async def goes_on(self) -> bool:
        """Whether the workers have nothing to do with it yet."""
        states = {state.name: state.state for state in await self._indices.all()}
        return states.get(self._name) == "building"

    async def watch(self, say: Callable[[int], None]) -> None:
        """Sample until it is loaded, and pass the number of documents to `say` each time."""

        async def is_loaded() -> bool:
            if not await self.goes_on():
                return True
            documents = await self.documents()
            self._samples.append((time.monotonic(), documents))
            say(documents)
            return False

        await wait_until(is_loaded, timeout=_LOADING_TIMEOUT_S, what="the new index is loaded")

    def per_second(self) -> int:
        """How many documents were written per second, from the first seen to the last."""
        first, last = self._samples[0][1], self._samples[-1][1]
        begin = max(at for at, documents in self._samples if documents == first)
        end = min(at for at, documents in self._samples if documents == last)
        return round((last - first) / (end - begin)) if end > begin else 0


class Swaps:
    """Searches that tell which index has answered."""

    def __init__(self, client: AsyncElasticsearch, deployed: Deployment) -> None:
        self._client = client
        self._alias = deployed.settings.namespace + USER_VIEWS.name
        self.seconds: list[float] = []
        """Of each swap: from the last answer of one index to the first of the other."""

    async def watch(self, done: asyncio.Event) -> None:
        """Search until all is done."""
        before, answered = None, 0.0
        while not done.is_set():
            with translating(self._client):
                found = await self._client.search(
                    index=self._alias, size=1, source=False, filter_path="hits.hits._index"
                )
            index, now = found["hits"]["hits"][0]["_index"], time.monotonic()
            if before not in (None, index):
                self.seconds.append(now - answered)
            before, answered = index, now
            await asyncio.sleep(_SEARCH_INTERVAL_S)


class Lag:
    """How long it takes until what people read has all events that there are at a time."""

    def __init__(self, progress: ViewProgress) -> None:
        self._progress = progress
        self.longest = 0.0

    async def watch(self, done: asyncio.Event) -> None:
        """Measure until all is done."""
        while not done.is_set():
            begin = time.monotonic()
            await self._progress.catch_up()
            self.longest = max(self.longest, time.monotonic() - begin)
