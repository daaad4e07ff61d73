"""Which node is asked, what is asked of another one, and what a refusal means."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from elastic_transport import (
    AiohttpHttpNode,
    ApiResponseMeta,
    ConnectionTimeout,
    HttpHeaders,
    NodeConfig,
)
from elasticsearch import AsyncElasticsearch, AuthenticationException, BadRequestError

from models.errors import CqrsError, Fatal, Transient
from streams.elasticsearch import connection
from streams.elasticsearch.connection import (
    OneNodeAtATime,
    ask_another_node,
    connect,
    current_node,
    translating,
)
from streams.settings import Settings

NODES = [NodeConfig("http", name, 9200) for name in ("a", "b", "c")]
SEVERAL = [
    Settings(elasticsearch_url=urls)
    for urls in ("http://a:1,http://b:1", "http://a:1,http://b:1,http://c:1")
]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_node_is_asked_until_it_fails(number: int) -> None:
    pool = OneNodeAtATime(NODES[:number], AiohttpHttpNode, randomize_nodes=False)
    asked = []
    for _ in range(number + 1):
        node = pool.get()
        asked.append(node.config)
        assert {pool.get() for _ in range(5)} == {node}
        pool.mark_live(node)
        assert pool.get() is node
        assert pool.current == node.config
        for _ in range(2):  # two requests may find out the same
            pool.mark_dead(node)
    assert asked == [*NODES[:number], NODES[0]], "they take turns"


@pytest.mark.parametrize("settings", SEVERAL)
@pytest.mark.parametrize("first", ["slow", 502, 503, 504])
async def test_what_one_node_cannot_do_is_asked_of_the_next_one(
    monkeypatch: pytest.MonkeyPatch, first: int | str, settings: Settings
) -> None:
    asked = nodes_answer(monkeypatch, first, 200)
    async with connect(settings, timeout=1) as client:
        with translating(client):
            await client.cluster.health()
            await client.cluster.health()
        assert current_node(client).host == asked[-1]
    assert asked[0] != asked[1] == asked[2]


@pytest.mark.parametrize("settings", SEVERAL)
async def test_a_node_that_failed_is_not_asked_again_while_the_next_one_answers(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    asked = nodes_answer(monkeypatch, "slow", 200)
    async with connect(settings, timeout=1) as client:
        await client.cluster.health()
        an_hour_later = time.time() + 3600
        monkeypatch.setattr("time.time", lambda: an_hour_later)
        for _ in range(3):
            await client.cluster.health()
            assert current_node(client).host == asked[-1]
    assert asked[0] not in asked[1:]
    assert len(set(asked[1:])) == 1


@pytest.mark.parametrize("settings", SEVERAL)
async def test_each_node_is_asked_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    asked = nodes_answer(monkeypatch, 503)
    async with connect(settings, timeout=1) as client:
        for _ in range(3):
            asked.clear()
            with pytest.raises(Transient, match="answered 503"), translating(client):
                await client.cluster.health()
            assert len(asked) == len(set(asked)) == len(settings.elasticsearch_urls)


@pytest.mark.parametrize("settings", SEVERAL)
async def test_another_node_is_asked_for_the_asking(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    asked = nodes_answer(monkeypatch, 200)
    async with connect(settings, timeout=1) as client:
        for _ in settings.elasticsearch_urls:
            await client.cluster.health()
            ask_another_node(client, current_node(client))
    assert len(set(asked)) == len(settings.elasticsearch_urls)


def nodes_answer(monkeypatch: pytest.MonkeyPatch, *answers: int | str) -> list[str]:
    """Let all nodes answer one status after the other, the last one for ever; return the asked."""
    asked: list[str] = []
    left = list(answers)

    async def perform_request(self: AiohttpHttpNode, *_: object, **__: object) -> Any:
        asked.append(self.host)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, str):
            raise ConnectionTimeout(answer)
        headers = {"x-elastic-product": "Elasticsearch", "content-type": "application/json"}
        meta = ApiResponseMeta(answer, "1.1", HttpHeaders(headers), 0.0, self.config)
        return SimpleNamespace(meta=meta, body=b"{}")

    monkeypatch.setattr(AiohttpHttpNode, "perform_request", perform_request)
    return asked


async def test_a_body_that_is_made_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a bulk request costs as much as encoding it."""
    sent: list[object] = []
    nodes_answer(monkeypatch, 200)
    answer = AiohttpHttpNode.perform_request

    async def perform_request(self: AiohttpHttpNode, *arguments: Any, **named: Any) -> Any:
        sent.append(named["body"])
        return await answer(self, *arguments, **named)

    monkeypatch.setattr(AiohttpHttpNode, "perform_request", perform_request)
    made: Any = b'{"index":{}}\n{}\n'
    async with connect(SEVERAL[1], timeout=1) as client:
        await client.bulk(operations=made)
        await client.bulk(operations=[{"index": {}}, {}])
    assert sent[0] is made
    assert sent[1] == made


NODE = NodeConfig("https", "es", 9200)


def refused(monkeypatch: pytest.MonkeyPatch, error: dict[str, Any]) -> CqrsError:
    """What becomes of a 401 with this error."""
    monkeypatch.setattr(connection, "address", lambda _: "https://es:9200")
    headers = HttpHeaders({"x-elastic-product": "Elasticsearch"})
    meta = ApiResponseMeta(401, "1.1", headers, 0.0, NODE)
    with (
        pytest.raises(CqrsError) as raised,
        translating(cast(AsyncElasticsearch, SimpleNamespace())),
    ):
        raise AuthenticationException("security_exception", meta, {"error": error})
    return raised.value


def test_a_key_that_cannot_be_looked_up_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "API key: apikey authentication for id x encountered a failure"
    error = refused(monkeypatch, {"additional_unsuccessful_credentials": reason})
    assert isinstance(error, Transient)
    assert str(error) == (
        f"Elasticsearch at https://es:9200 cannot look up API keys (401); {reason}"
    )


@pytest.mark.parametrize("error", [{}, {"reason": "unable to authenticate user [anna]"}])
def test_any_other_refusal_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, error: dict[str, Any]
) -> None:
    assert isinstance(refused(monkeypatch, error), Fatal)


def test_a_server_that_is_older_than_the_client_is_named_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "address", lambda _: "https://es:9200")
    headers = HttpHeaders({"x-elastic-product": "Elasticsearch"})
    meta = ApiResponseMeta(400, "1.1", headers, 0.0, NODE)
    reason = "A compatible version is required on both Content-Type and Accept headers"
    with (
        pytest.raises(Fatal) as raised,
        translating(cast(AsyncElasticsearch, SimpleNamespace())),
    ):
        raise BadRequestError("media_type_header_exception", meta, {"error": {"reason": reason}})
    assert str(raised.value) == (
        "Elasticsearch at https://es:9200 does not understand the requests of this version: "
        "Elasticsearch 9 is needed"
    )
