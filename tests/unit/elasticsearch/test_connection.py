"""Which node is asked, and what is asked of another one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from elastic_transport import (
    AiohttpHttpNode,
    ApiResponseMeta,
    ConnectionTimeout,
    HttpHeaders,
    NodeConfig,
)

from models.errors import Transient
from streams.elasticsearch.connection import (
    OneNodeAtATime,
    ask_another_node,
    connect,
    current_node,
    translating,
)
from streams.settings import Settings

NODES = [AiohttpHttpNode(NodeConfig("http", name, 9200)) for name in ("a", "b", "c")]
THREE = Settings(elasticsearch_url="http://a:1,http://b:1,http://c:1")


def test_one_node_is_asked_until_it_fails() -> None:
    selector = OneNodeAtATime([node.config for node in NODES])
    assert {selector.select(NODES) for _ in range(5)} == {NODES[0]}
    assert selector.select(NODES[1:]) is NODES[1]
    assert selector.select(NODES) is NODES[1], "it is asked although the first one is back"


def test_the_nodes_take_turns() -> None:
    selector = OneNodeAtATime([node.config for node in NODES])
    asked = []
    for _ in range(4):
        node = selector.select(NODES)
        asked.append(node)
        for _ in range(2):  # two requests may find out the same
            selector.leave(node.config)
    assert asked == [*NODES, NODES[0]]


@pytest.mark.parametrize("first", ["slow", 502, 503, 504])
async def test_what_one_node_cannot_do_is_asked_of_the_next_one(
    monkeypatch: pytest.MonkeyPatch, first: int | str
) -> None:
    asked = nodes_answer(monkeypatch, first, 200)
    async with connect(THREE, timeout=1) as client:
        with translating(client):
            await client.cluster.health()
            await client.cluster.health()
    assert asked[0] != asked[1] == asked[2]


async def test_each_node_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = nodes_answer(monkeypatch, 503)
    async with connect(THREE, timeout=1) as client:
        with pytest.raises(Transient, match="answered 503"), translating(client):
            await client.cluster.health()
    assert len(asked) == len(set(asked)) == 3


async def test_another_node_is_asked_for_the_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = nodes_answer(monkeypatch, 200)
    async with connect(THREE, timeout=1) as client:
        for _ in range(3):
            await client.cluster.health()
            ask_another_node(client, current_node(client))
    assert len(set(asked)) == 3


def nodes_answer(monkeypatch: pytest.MonkeyPatch, *answers: int | str) -> list[str]:
    """Let all nodes answer one status after the other, the last one for ever; return the asked."""
    asked: list[str] = []
    left = list(answers)

    async def perform_request(self: AiohttpHttpNode, *_: object, **__: object) -> Any:
        asked.append(self.base_url)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, str):
            raise ConnectionTimeout(answer)
        headers = {"x-elastic-product": "Elasticsearch", "content-type": "application/json"}
        meta = ApiResponseMeta(answer, "1.1", HttpHeaders(headers), 0.0, self.config)
        return SimpleNamespace(meta=meta, body=b"{}")

    monkeypatch.setattr(AiohttpHttpNode, "perform_request", perform_request)
    return asked
