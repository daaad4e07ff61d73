"""The view store on the real Elasticsearch."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from elasticsearch import AsyncElasticsearch

from agents.user_views import ORDER, USER_VIEWS
from deploy.ephemeral import Servers
from models.errors import CqrsError, Fatal, NoSuchView, Transient
from streams.elasticsearch.bulk_writer import WriteStatus
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import REFUSED, Document
from streams.settings import Settings
from streams.views.checkpoint import Checkpoint, IndexChanged
from streams.views.indices import ViewIndices
from streams.views.reader import ViewReader, open_view
from streams.views.store import ViewStore
from streams.views.tally import Tally
from tests.harness.elasticsearch_proxy import Cut, Fault, FaultProxy, Refuse, Stall
from tests.harness.read_side import delete_view, follow, namespace, serve, user_views


@pytest.fixture
async def settings(stack: Servers) -> AsyncIterator[Settings]:
    async with namespace(stack) as settings:
        yield settings


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[ViewStore]:
    async with user_views(settings) as store:
        yield store


@pytest.fixture
async def proxy(stack: Servers) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(stack.elasticsearch_url, random.Random(1)).serving() as proxy:
        yield proxy


def user(key: str, version: int = 1, **fields: Any) -> Document:
    return {
        "id": key,
        "email": f"{key}@example.org",
        "firstName": "Anna",
        "lastName": "Müller",
        "isActive": True,
        "registeredAt": "2026-11-23T12:00:00.000Z",
        "lastUpdated": "2026-11-23T12:00:00.000Z",
        "version": version,
        **fields,
    }


async def fates(store: ViewStore, *documents: Document) -> list[WriteStatus]:
    return [answer.status for answer in await store.bulk_index(documents)]


# The index


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
        await store.bulk_index([user("a")])
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
            assert await fates(indices.store(name), user("a")) == [WriteStatus.WRITTEN]
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


# How far it is


async def test_an_index_has_its_checkpoints(store: ViewStore) -> None:
    assert (await store.checkpoints([0, 1])).checkpoints == {0: Checkpoint(), 1: Checkpoint()}
    saved = await store.save_checkpoint(1, Checkpoint(7, 5, 2, "cluster", Tally(3, (1 << 64) - 1)))
    found = await store.checkpoints([0, 1])
    assert found.name.endswith("user-views-v1")
    assert found.checkpoints == {0: Checkpoint(), 1: saved}
    assert await store.count() == 0
    assert [document async for document in store.scan()] == []


async def test_a_checkpoint_is_saved_only_over_the_one_that_was_read(store: ViewStore) -> None:
    first = await store.save_checkpoint(0, Checkpoint(7))
    with pytest.raises(IndexChanged):
        await store.save_checkpoint(0, Checkpoint(8))  # of somebody who saw none
    second = await store.save_checkpoint(0, replace(first, position=9))
    with pytest.raises(IndexChanged):
        await store.save_checkpoint(0, replace(first, position=8))  # of a former owner
    assert (await store.checkpoints([0])).checkpoints == {0: second}


async def test_a_deleted_index_does_not_come_back_by_writing(
    settings: Settings, store: ViewStore
) -> None:
    await delete_view(settings)
    with pytest.raises(NoSuchView):
        await store.bulk_index([user("a")])
    with pytest.raises(NoSuchView):
        await store.save_checkpoint(0, Checkpoint(7))
    async with connect(settings, timeout=30) as client:
        assert await ViewIndices.from_settings(settings, client, USER_VIEWS).all() == []


# Writing


async def test_a_newer_version_replaces_an_older_one_and_never_the_other_way(
    store: ViewStore,
) -> None:
    assert await fates(store, user("a", 2)) == [WriteStatus.WRITTEN]
    assert await fates(store, user("a", 2), user("a", 1, email="old@example.org")) == [
        WriteStatus.WRITTEN,  # again: now on all copies of the index
        WriteStatus.STALE,
    ]
    assert await fates(store, user("a", 3, email="new@example.org")) == [WriteStatus.WRITTEN]
    assert await store.get("a") == user("a", 3, email="new@example.org")


async def test_each_document_has_its_own_result(store: ViewStore) -> None:
    await store.bulk_index([user("there")])
    answers = await store.bulk_index(
        [
            user("new"),
            user("unknown field", secret="hidden-value"),
            user("there"),
            user("no date", registeredAt="hidden-value"),
            user("immense", lastName="hidden-value" * 4000),
            user("unsearchable", email="hidden-value" * 100),
            user("x" * 513),
            user(""),
            user("new too"),
        ]
    )
    assert [answer.status for answer in answers] == [
        WriteStatus.WRITTEN,
        WriteStatus.REFUSED,
        WriteStatus.WRITTEN,
        *[WriteStatus.REFUSED] * 5,
        WriteStatus.WRITTEN,
    ]
    reasons = [answer.reason for answer in answers if answer.status is WriteStatus.REFUSED]
    assert "strict_dynamic_mapping_exception" in reasons[0]
    assert "failed to parse field [registeredAt]" in reasons[1]
    assert "failed to parse field [lastName]" in reasons[2]
    assert "at most 1000" in reasons[3]
    assert "1 to 512 bytes" in reasons[4]
    # neither what was in the document nor its bytes, which Elasticsearch would list
    assert not any("hidden" in reason or "104, 105" in reason for reason in reasons)


async def test_many_documents_take_several_requests(settings: Settings, store: ViewStore) -> None:
    # more than fit into one request, by number and by bytes
    few = settings.model_copy(update={"bulk_documents": 100})
    documents = [user(f"u-{n}", lastName="x" * (20_000 if n < 150 else 1)) for n in range(1000)]
    documents[500]["more"] = 1
    async with user_views(few) as cutting:
        answers = await cutting.bulk_index(documents)
    assert [
        place for place, answer in enumerate(answers) if answer.status is WriteStatus.REFUSED
    ] == [500]
    assert [answer.status for answer in answers].count(WriteStatus.WRITTEN) == 999
    await store.refresh()
    assert await store.count() == 999


async def test_without_documents_no_request_is_sent(store: ViewStore) -> None:
    assert await store.bulk_index([]) == []
    assert await store.fetch([]) == {}


async def test_a_block_on_the_index_is_transient(settings: Settings, store: ViewStore) -> None:
    async with connect(settings, timeout=30) as client:
        alias = f"{settings.namespace}user-views"
        await client.indices.put_settings(index=alias, settings={"index.blocks.write": True})
        (answer,) = await store.bulk_index([user("a")])
        assert answer.status is WriteStatus.RETRY
        assert "cluster_block_exception" in answer.reason
        await client.indices.put_settings(index=alias, settings={"index.blocks.write": None})
    assert await fates(store, user("a")) == [WriteStatus.WRITTEN]


# Reading


async def test_a_document_is_read_back_as_it_was_before_any_refresh(store: ViewStore) -> None:
    await store.bulk_index([user("a"), user("b", 7, isActive=False)])
    assert await store.fetch(["a", "missing", "b"]) == {
        "a": user("a"),
        "b": user("b", 7, isActive=False),
    }
    assert await store.get("missing") is None


async def test_any_id_works(store: ViewStore) -> None:
    odd = ["..", ".", "a/b", "*", "a,b", "a b", "%2e", "_mget", "?", "ß😀", "😀" * 128, '"']
    assert await fates(store, *map(user, odd)) == [WriteStatus.WRITTEN] * len(odd)
    for key in odd:
        assert await store.get(key) == user(key)


async def test_a_document_with_an_impossible_id_does_not_exist(store: ViewStore) -> None:
    for key in ("", "x" * 513, "x" * 100_000, "😀" * 129, "\ud800"):
        assert await store.get(key) is None
        assert await fates(store, user(key)) == [WriteStatus.REFUSED]


async def test_a_stand_in_is_only_for_the_projector(store: ViewStore) -> None:
    bad = user("a", 2, registeredAt="no date")
    stand_in = {"id": "a", "version": 2, REFUSED: bad}
    assert await fates(store, stand_in) == [WriteStatus.WRITTEN]
    assert await store.get("a") is None
    assert await store.fetch(["a"]) == {"a": stand_in}
    await store.refresh()
    assert [document async for document in store.scan()] == [stand_in]


async def test_search_continues_after_sort_values(store: ViewStore) -> None:
    await store.bulk_index([user(key) for key in "edcba"])
    await store.refresh()
    everyone: dict[str, Any] = {"match_all": {}}
    first = await store.search(everyone, sort=ORDER, limit=2)
    rest = await store.search(everyone, sort=ORDER, limit=9, after=first[-1].sort_values)
    assert [hit.document["id"] for hit in [*first, *rest]] == list("abcde")
    bare = await store.search(everyone, sort=ORDER, limit=2, sort_values_only=True)
    assert [hit.sort_values for hit in bare] == [hit.sort_values for hit in first]


async def test_scan_yields_every_document_once(store: ViewStore) -> None:
    documents = [user(f"u-{n}") for n in range(2100)]
    await store.bulk_index(documents)
    await store.refresh()
    scanned = [document["id"] async for document in store.scan()]
    assert sorted(scanned) == sorted(document["id"] for document in documents)
    assert await store.count({"term": {"isActive": True}}) == 2100


# What can be wrong with Elasticsearch


async def failure(view: ViewReader, request: str) -> CqrsError:
    indices = ViewIndices(view._client, USER_VIEWS.index, "")
    store = ViewStore(view._client, USER_VIEWS.index, name=view.name)
    requests: dict[str, Any] = {
        "bulk": lambda: store.bulk_index([user("a")]),
        "fetch": lambda: view.fetch(["a"]),
        "search": lambda: view.search({"match_all": {}}, sort=ORDER, limit=1),
        "scan": lambda: anext(view.scan()),
        "count": view.count,
        "refresh": view.refresh,
        "first look": lambda: indices.look(None, starting=True),
        "indices": lambda: indices.look(None),
    }
    with pytest.raises(CqrsError) as caught:
        await requests[request]()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("request_", ["fetch", "search", "scan", "count", "refresh"])
async def test_a_missing_index_is_an_error(settings: Settings, request_: str) -> None:
    async with open_view(settings, USER_VIEWS, timeout=30) as store:
        error = await failure(store, request_)
    assert type(error) is NoSuchView
    assert str(error) == (
        f"Elasticsearch has no index {settings.namespace}user-views: a view worker makes it and "
        "shows it when it is complete; `cqrs views status` says how far that is"
    )


@pytest.mark.parametrize("request_", ["bulk", "fetch", "search", "count", "indices"])
@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_overload_and_gateway_errors_are_transient(
    proxy: FaultProxy, request_: str, status: int, settings: Settings
) -> None:
    proxy.switch(Refuse(status))
    behind = settings.model_copy(update={"elasticsearch_url": proxy.url})
    async with open_view(behind, USER_VIEWS, timeout=30) as behind_proxy:
        error = await failure(behind_proxy, request_)
    assert type(error) is Transient
    assert f"answered {status}" in str(error)


@pytest.mark.parametrize("fault", [Cut("before"), Cut("response"), Cut("after"), Stall("after")])
async def test_a_connection_that_breaks_or_hangs_is_transient(
    proxy: FaultProxy, fault: Fault, settings: Settings, store: ViewStore
) -> None:
    proxy.switch(fault)
    behind = settings.model_copy(update={"elasticsearch_url": proxy.url})
    async with open_view(behind, USER_VIEWS, timeout=1) as behind_proxy:
        assert type(await failure(behind_proxy, "bulk")) is Transient
        assert type(await failure(behind_proxy, "search")) is Transient
        proxy.switch(None)
        assert await behind_proxy.count() >= 0


async def test_a_refused_connection_is_transient(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"elasticsearch_url": "http://127.0.0.1:1"})
    async with open_view(nowhere, USER_VIEWS, timeout=5) as store:
        for request in ("indices", "bulk", "search"):
            error = await failure(store, request)
            assert type(error) is Transient
            assert "Elasticsearch at http://127.0.0.1:1 cannot be reached" in str(error)


async def test_an_unknown_host_is_an_error_at_the_start_and_an_outage_later(
    settings: Settings,
) -> None:
    nowhere = settings.model_copy(update={"elasticsearch_url": "http://nowhere.invalid:9200"})
    async with open_view(nowhere, USER_VIEWS, timeout=5) as store:
        error = await failure(store, "first look")
        assert type(error) is Fatal
        assert "http://nowhere.invalid:9200 is not known" in str(error)
        for request in ("indices", "bulk"):
            assert type(await failure(store, request)) is Transient


@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_credentials_are_an_error(
    settings: Settings, proxy: FaultProxy, status: int
) -> None:
    proxy.switch(Refuse(status))
    url = proxy.url.replace("http://", "http://anna:s3cret@")
    async with open_view(
        settings.model_copy(update={"elasticsearch_url": url}), USER_VIEWS, timeout=30
    ) as store:
        for request in ("indices", "bulk", "search"):
            error = await failure(store, request)
            assert type(error) is Fatal
            assert f"refuses the credentials ({status})" in str(error)
            assert "s3cret" not in str(error)


@asynccontextmanager
async def answering(settings: Settings, **answer: Any) -> AsyncIterator[ViewReader]:
    """A view on a server that has only this answer."""

    async def handle(_: web.BaseRequest) -> web.Response:
        return web.Response(**answer)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    other = settings.model_copy(update={"elasticsearch_url": f"http://{host}:{port}"})
    try:
        async with open_view(other, USER_VIEWS, timeout=5) as view:
            yield view
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", [200, 404, 405, 406])
@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/html", "<h1>hello</h1>"),
        ("application/json", '{"error": {"message": "no such page"}}'),
        # OpenSearch, of the type of a request's body
        ("application/json", '{"error": "Content-Type header [] is not supported", "status": 406}'),
        ("application/octet-stream", ""),
    ],
)
async def test_another_server_is_an_error(
    settings: Settings, status: int, content_type: str, text: str
) -> None:
    async with answering(settings, text=text, content_type=content_type, status=status) as store:
        for request in ("indices", "bulk", "search"):
            error = await failure(store, request)
            assert type(error) is Fatal
            assert "is not Elasticsearch (OpenSearch does not do instead): check" in str(error)


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/html", "<h1>bad gateway</h1>"),
        ("application/json", '{"error": {"code": 503, "message": "no backend"}}'),
        ("application/json", '["no backend"]'),
        ("application/json", "no backend"),
        ("application/problem+json", '{"title": "no backend"}'),
        ("application/octet-stream", ""),
    ],
)
async def test_a_gateway_error_without_json_is_transient(
    settings: Settings, content_type: str, text: str
) -> None:
    async with answering(settings, text=text, content_type=content_type, status=503) as store:
        for request in ("indices", "bulk", "fetch", "search"):
            assert type(await failure(store, request)) is Transient
