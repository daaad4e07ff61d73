"""How an index of a view is created and served, on the real Elasticsearch."""

import asyncio
from dataclasses import replace

from elasticsearch import AsyncElasticsearch

from agents.user_views import ORDER, USER_VIEWS
from streams.elasticsearch.bulk_writer import WRITTEN
from streams.elasticsearch.connection import connect
from streams.settings import Settings
from streams.views.indices import ViewIndices
from streams.views.store import ViewStore
from tests.harness.read_side import follow, serve, user_views


async def test_only_one_of_several_workers_creates_the_index(settings: Settings) -> None:
    async with connect(settings, timeout=30) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        created = await asyncio.gather(*(indices.create(1, {}, followed=True) for _ in range(4)))
        assert sorted(created) == [False, False, False, True]
        assert not await indices.create(1, {}, followed=True)


async def test_the_index_is_numbered_behind_its_alias(settings: Settings) -> None:
    async with user_views(settings):
        pass
    async with connect(settings, timeout=30) as client:
        found = await client.indices.get(index=f"{settings.namespace}user-views")
    [(name, index)] = found.items()
    assert name == f"{settings.namespace}user-views-v1"
    assert index["settings"]["index"]["sort"]["field"] == list(ORDER)
    assert index["settings"]["index"]["number_of_replicas"] == "0"  # one node


async def test_an_index_is_refreshed_once_it_serves(settings: Settings) -> None:
    async with connect(settings, timeout=30) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await indices.create(1, {}, followed=True)
        (made,) = await indices.all()
        store = indices.store(made.name)
        await store.bulk_index(USER_VIEWS.example_documents)
        assert await refresh_interval(client, made.name) == "-1"
        assert await store.count() == 0
        await serve(indices, 1)
        assert await store.count() == 1
        assert await refresh_interval(client, made.name) == "1s"


async def refresh_interval(client: AsyncElasticsearch, name: str) -> str:
    return (await index_settings(client, name))["refresh_interval"]


async def index_settings(client: AsyncElasticsearch, name: str) -> dict[str, str]:
    found = await client.indices.get_settings(index=name)
    return dict(found[name]["settings"]["index"])


async def test_an_index_template_decides_nothing_that_has_to_hold(settings: Settings) -> None:
    """Such as an organisation has for all indices. The replicas are those of our setting."""
    name = f"{settings.namespace}user-views-v1"
    chosen = settings.model_copy(update={"view_replicas": 2})
    async with connect(settings, timeout=30) as client:
        await client.indices.put_index_template(
            name=settings.namespace,
            index_patterns=[f"{settings.namespace}*"],
            template={
                "settings": {
                    "number_of_shards": 3,
                    "auto_expand_replicas": "0-all",
                    "refresh_interval": "30s",
                    "default_pipeline": "not-there",
                    "final_pipeline": "not-there",
                }
            },
        )
        try:
            indices = ViewIndices.from_settings(chosen, client, USER_VIEWS)
            await indices.create(1, {}, followed=True)
            (written,) = await indices.store(name).bulk_index(USER_VIEWS.example_documents[:1])
            assert written is WRITTEN
            loading = await index_settings(client, name)
            assert (loading["number_of_shards"], loading["number_of_replicas"]) == ("1", "0")
            await serve(indices, 1)
            serving = await index_settings(client, name)
            assert (serving["refresh_interval"], serving["number_of_replicas"]) == ("1s", "2")
        finally:
            await client.indices.delete_index_template(name=settings.namespace)


async def test_the_replicas_that_an_operator_chooses_stay(settings: Settings) -> None:
    name = f"{settings.namespace}user-views-v1"
    async with user_views(settings), connect(settings, timeout=30) as client:
        chosen = {"number_of_replicas": 2, "auto_expand_replicas": "false"}
        await client.indices.put_settings(index=name, settings=chosen)
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await follow(indices, 1)
        await serve(indices, 1)
        assert (await index_settings(client, name))["number_of_replicas"] == "2"


async def test_the_alias_moves_at_once(settings: Settings, store: ViewStore) -> None:
    async with connect(settings, timeout=30) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        await indices.create(2, {0: 7}, followed=False)
        assert [one.state for one in await indices.all()] == ["serving", "building"]
        await follow(indices, 2)
        assert [one.state for one in await indices.all()] == ["serving", "followed"]
        await serve(indices, 2)
        first, second = await indices.all()
        assert (first.state, second.state, second.wanted) == ("followed", "serving", {0: 7})
        assert all(indices.is_current(one) for one in (first, second))
        other = replace(USER_VIEWS, index=replace(USER_VIEWS.index, search_only=()))
        assert not ViewIndices.from_settings(settings, client, other).is_current(first)
        await indices.drop(first.name)
        assert await indices.all() == [second]
