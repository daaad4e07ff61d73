"""What a view makes of an Elasticsearch that is away, overloaded, another one or refuses."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from agents.user_views import ORDER, USER_VIEWS
from deploy.ephemeral import Servers
from deploy.waiting import wait_until
from models.errors import CqrsError, Fatal, NoSuchView, Transient
from streams.settings import Settings
from streams.views.indices import ViewIndices
from streams.views.reader import ViewReader, open_view
from streams.views.store import ViewStore
from tests.harness.elasticsearch_proxy import Cut, Fault, FaultProxy, Refuse, Stall


@pytest.fixture
async def proxy(stack: Servers) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(stack.elasticsearch_url, random.Random(1)).serving() as proxy:
        yield proxy


async def failure(view: ViewReader, request: str) -> CqrsError:
    indices = ViewIndices(view._client, USER_VIEWS.index, "")
    store = ViewStore(view._client, USER_VIEWS.index, name=view.name)
    requests: dict[str, Any] = {
        "bulk": lambda: store.bulk_index(USER_VIEWS.example_documents),
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

        async def answers() -> bool:
            try:
                return await behind_proxy.count() >= 0
            except Transient:  # a second may be short for one answer
                return False

        await wait_until(answers)


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
