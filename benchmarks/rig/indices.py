"""Indices like those of our view worker, for contestants that write to them."""

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

REQUEST_TIMEOUT_S = 60.0
WAIT_TIMEOUT_S = 1800.0  # for work on all documents


@asynccontextmanager
async def new_index(
    context: BenchContext,
) -> AsyncIterator[tuple[Settings, AsyncElasticsearch, str]]:
    """Create an index with our definition and loading settings; delete it after the block.

    Yields:
        Settings of its namespace, a client, and its name.
    """
    settings, _ = await new_deployment(context)
    async with connect(settings, timeout=REQUEST_TIMEOUT_S) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await indices.create(1, {}, followed=True)
        name = f"{indices.alias}-v1"
        yield settings, client, name
        await indices.drop(name)


async def wait_until_all_found(client: AsyncElasticsearch, index: str, documents: int) -> None:
    """Refresh the index until a search finds this number of users."""

    async def all_are_found() -> bool:
        await client.indices.refresh(index=index)
        users = {"exists": {"field": "email"}}
        found = await client.count(index=index, query=users)
        return bool(found["count"] == documents)

    await wait_until(all_are_found, what=f"{documents} documents are found")


async def wait_until_merged(client: AsyncElasticsearch, index: str) -> None:
    """Wait until no merge of the index is running, so that it does not disturb what follows."""

    async def merged() -> bool:
        found = await client.indices.stats(index=index, metric="merge")
        return bool(found["_all"]["total"]["merges"]["current"] == 0)

    await wait_until(merged, timeout=WAIT_TIMEOUT_S, what="its segments are merged")
