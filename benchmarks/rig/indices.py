"""Indices like those of our view worker, for whoever writes to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from benchmarks.rig.backlog import new_deployment
from benchmarks.rig.runner import BenchContext
from deploy.waiting import wait_until
from streams.elasticsearch.connection import connect
from streams.settings import Settings
from streams.views.indices import ViewIndices

TIMEOUT = 60.0  # seconds for one request
PATIENCE = 600.0  # seconds for what has to be done with every document


@asynccontextmanager
async def new_index(
    ground: BenchContext,
) -> AsyncIterator[tuple[Settings, AsyncElasticsearch, str]]:
    """An index of our definition, set for loading, and its name; it is gone afterwards."""
    settings, _ = await new_deployment(ground)
    async with connect(settings, timeout=TIMEOUT) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await indices.create(1, {}, followed=True)
        name = f"{indices.alias}-v1"
        yield settings, client, name
        await indices.drop(name)


async def until_all_are_found(client: AsyncElasticsearch, index: str, documents: int) -> None:
    """Refresh it, until a search sees so many users."""

    async def all_are_found() -> bool:
        await client.indices.refresh(index=index)
        users = {"exists": {"field": "email"}}
        found = await client.count(index=index, query=users)
        return bool(found["count"] == documents)

    await wait_until(all_are_found, what=f"{documents} documents are found")


async def until_merged(client: AsyncElasticsearch, index: str) -> None:
    """Wait until Elasticsearch is through with it, and leaves the machine alone."""

    async def merged() -> bool:
        found = await client.indices.stats(index=index, metric="merge")
        return bool(found["_all"]["total"]["merges"]["current"] == 0)

    await wait_until(merged, timeout=PATIENCE, what="its segments are merged")
