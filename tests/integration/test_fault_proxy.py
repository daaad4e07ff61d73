"""The fault proxy in front of the real Elasticsearch."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from io import BytesIO
from uuid import uuid4

import aiohttp
import orjson
import pytest

from deploy.ephemeral import Servers
from deploy.waiting import wait_until
from tests.harness.elasticsearch_proxy import (
    Cut,
    Delay,
    Fault,
    FaultProxy,
    Refuse,
    RejectItems,
    Stall,
)

NDJSON = {"Content-Type": "application/x-ndjson"}


class Index:
    """An index, as seen through the proxy, and past it."""

    def __init__(self, http: aiohttp.ClientSession, proxy: FaultProxy, directly: str) -> None:
        self.http = http
        self.proxy = proxy
        self.name = f"t{uuid4().hex[:10]}"
        self.directly = directly

    async def send(self, *ids: str) -> list[int]:
        """Write documents in one bulk through the proxy; the status of each."""
        body = b"".join(b'{"index":{"_id":"%b"}}\n{}\n' % one.encode() for one in ids)
        async with self.http.post(self.url("_bulk"), data=body, headers=NDJSON) as answer:
            assert answer.status == 200
            return [item["index"]["status"] for item in orjson.loads(await answer.read())["items"]]

    async def has(self, key: str) -> bool:
        """Whether Elasticsearch has this document."""
        async with self.http.head(f"{self.directly}/{self.name}/_doc/{key}") as answer:
            return answer.status == 200

    def url(self, path: str) -> str:
        return f"{self.proxy.url}/{self.name}/{path}"


@pytest.fixture
async def index(stack: Servers) -> AsyncIterator[Index]:
    async with (
        FaultProxy(stack.elasticsearch_url, random.Random(4)).serving() as proxy,
        aiohttp.ClientSession() as http,
    ):
        index = Index(http, proxy, stack.elasticsearch_url)
        await index.send("there")
        yield index
        await http.delete(f"{stack.elasticsearch_url}/{index.name}")


async def test_everything_is_passed_on_unchanged(index: Index) -> None:
    odd = "a%2Fb%20c?filter_path=_id,_source"
    large = BytesIO(orjson.dumps({"text": "ü" * 2_000_000}))
    json = {"Content-Type": "application/json"}
    async with index.http.put(index.url(f"_doc/{odd}"), data=large, headers=json) as answer:
        assert answer.status == 201
    answers = []
    for url in (index.proxy.url, index.directly):
        async with index.http.get(f"{url}/{index.name}/_doc/{odd}") as answer:
            headers = [answer.headers[name] for name in ("Content-Type", "X-elastic-product")]
            answers.append((answer.status, headers, await answer.read()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    assert index.proxy.requests == {"_bulk": 1, "b c": 2}
    assert not index.proxy.met


async def test_a_refused_request_does_not_arrive(index: Index) -> None:
    for status in (429, 503):
        index.proxy.switch(Refuse(status))
        async with index.http.put(index.url("_doc/a"), json={}) as answer:
            assert answer.status == status
            assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert index.proxy.met == {Refuse(429): 1, Refuse(503): 1}
    assert not await index.has("a")
    index.proxy.switch(None)
    assert await index.send("a") == [201]


@pytest.mark.parametrize("fault", [Stall("before"), Stall("after")])
async def test_a_stalled_request_is_answered_at_the_switch(index: Index, fault: Stall) -> None:
    index.proxy.switch(fault)
    sending = asyncio.create_task(index.send("a"))
    await wait_until(lambda: index.proxy.met[fault])
    if fault.moment == "after":
        await wait_until(lambda: index.has("a"))
    assert not sending.done()
    assert await index.has("a") == (fault.moment == "after")
    index.proxy.switch(None)
    assert await sending == [201]


async def test_a_stalled_request_arrives_though_its_sender_has_given_up(index: Index) -> None:
    index.proxy.switch(Stall("before"))
    sending = asyncio.create_task(index.send("a"))
    await wait_until(lambda: index.proxy.met.total())
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not await index.has("a")
    index.proxy.switch(None)
    await wait_until(lambda: index.has("a"))


@pytest.mark.parametrize("fault", [Cut("before"), Cut("response"), Cut("after")])
async def test_a_connection_is_cut(index: Index, fault: Cut) -> None:
    index.proxy.switch(fault)
    with pytest.raises(aiohttp.ClientError) as caught:
        await index.send("a")
    assert isinstance(caught.value, aiohttp.ClientPayloadError) == (fault.moment == "response")
    assert index.proxy.met == {fault: 1}
    assert await index.has("a") == (fault.moment != "before")


async def test_some_items_of_a_bulk_are_rejected(index: Index) -> None:
    old, new = [f"old{n}" for n in range(10)], [f"new{n}" for n in range(10)]
    await index.send(*old)
    index.proxy.switch(RejectItems(0.5))
    statuses = await index.send(*old, *new)
    assert {*statuses[:10]} == {200, 429}  # the answers are in the order of the items
    assert {*statuses[10:]} == {201, 429}
    assert index.proxy.rejected == statuses.count(429)
    for key, status in zip(new, statuses[10:], strict=True):
        assert await index.has(key) == (status == 201)
    async with index.http.get(index.url("_doc/there")) as answer:
        assert answer.status == 200  # what is no bulk goes through


async def test_all_items_of_a_bulk_are_rejected(index: Index) -> None:
    index.proxy.switch(RejectItems(1))
    assert await index.send("a", "b") == [429, 429]
    assert not await index.has("a")


async def test_requests_are_delayed(index: Index) -> None:
    index.proxy.switch(Delay(0.3))
    started = time.monotonic()
    assert await index.send("a") == [201]
    assert time.monotonic() - started >= 0.3


async def test_only_some_paths_fail(index: Index) -> None:
    index.proxy.switch(Refuse(503), "_doc")
    assert await index.send("a") == [201]
    async with index.http.get(index.url("_doc/a")) as answer:
        assert answer.status == 503


@pytest.mark.parametrize("fault", [None, RejectItems(0.0), Cut("after")])
async def test_without_elasticsearch_connections_are_cut(fault: Fault | None) -> None:
    async with (
        FaultProxy("http://127.0.0.1:1", random.Random(4)).serving() as proxy,
        aiohttp.ClientSession() as http,
    ):
        proxy.switch(fault)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.post(f"{proxy.url}/_bulk", data=b"{}\n{}\n", headers=NDJSON)
