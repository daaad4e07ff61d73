"""A proxy in front of Elasticsearch that fails in a way that can be switched at any time.

    async with FaultProxy(stack.elasticsearch_url, rng).serving() as proxy:
        ...                                # workers use `proxy.url`
        proxy.switch(Refuse(503))
        ...
        proxy.switch(None)                 # no more faults
        proxy.met[Refuse(503)]             # number of requests that were refused

Requests and responses are passed on unchanged, except that they are not compressed. While
Elasticsearch itself is down, connections are cut.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any, Literal

import aiohttp
import orjson
from aiohttp import web


@dataclass(frozen=True)
class Refuse:
    """Respond with this status and pass nothing on."""

    status: int


@dataclass(frozen=True)
class Stall:
    """Hold each request until the next switch.

    `before`: it reaches Elasticsearch late, when its sender may have given up and sent newer
    documents. `after`: Elasticsearch has executed it, and the response is held.
    """

    moment: Literal["before", "after"]


@dataclass(frozen=True)
class Cut:
    """Cut the connection before or after Elasticsearch executes a request, or in its response."""

    moment: Literal["before", "response", "after"]


@dataclass(frozen=True)
class RejectItems:
    """Reject this share of the items of each bulk request, as an overloaded Elasticsearch does.

    The others are passed on. The response has the results of all items in their order.
    """

    share: float


@dataclass(frozen=True)
class Delay:
    """Pass each request on after this time."""

    seconds: float


Fault = Refuse | Stall | Cut | RejectItems | Delay

# Headers that are valid for one connection only, and of compression, which aiohttp undoes.
_NOT_PASSED_ON = frozenset(
    {
        *("connection", "content-length", "host", "keep-alive", "transfer-encoding"),
        *("accept-encoding", "content-encoding"),
    }
)

_OVERLOADED = {"type": "es_rejected_execution_exception", "reason": "rejected by the fault proxy"}
_REJECTED = {"index": {"status": 429, "error": _OVERLOADED}}


class FaultProxy:
    """A proxy on 127.0.0.1."""

    def __init__(self, upstream: str, rng: random.Random) -> None:
        """Prepare a proxy for the Elasticsearch at `upstream`; `rng` chooses rejected items."""
        self.url = ""
        """URL for clients, while the proxy is serving."""
        self.requests: Counter[str] = Counter()
        """Number of requests by the last part of their path, such as `_bulk`."""
        self.met: Counter[Fault] = Counter()
        """Number of requests by the fault that was active when they came."""
        self.rejected = 0
        """Number of items of bulk requests that were rejected."""
        self._upstream = upstream
        self._rng = rng
        self._fault: Fault | None = None
        self._paths = ""
        self._switched = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FaultProxy]:
        """Serve on a free port for the time of the block."""
        app = web.Application(client_max_size=0)  # no limit
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None)
        async with aiohttp.ClientSession(
            self._upstream,
            skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(),  # none: the client has one
        ) as self._session:
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                host, port = runner.addresses[0][:2]
                self.url = f"http://{host}:{port}"
                yield self
            finally:
                self.switch(None)
                await runner.cleanup()

    def switch(self, fault: Fault | None, paths: str = "") -> None:
        """Change the fault, for requests whose path contains `paths`; None is no fault.

        Requests that are held continue. Others that are in progress keep the fault they came under.
        """
        self._fault, self._paths = fault, paths
        self._switched.set()
        self._switched = asyncio.Event()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path.rpartition("/")[2]] += 1
        try:
            await request.read()
            if self._fault is None or self._paths not in request.path:
                return await self._pass_on(request)
            return await self._fail(self._fault, request)
        except aiohttp.ClientError:  # the client or Elasticsearch has disconnected
            return _cut(request)

    async def _fail(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        self.met[fault] += 1
        switched = self._switched
        match fault:
            case Refuse(status):
                return _json(status, {"error": _OVERLOADED, "status": status})
            case RejectItems(share):
                return await self._reject_some(request, share)
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._pass_on(request)
            case Stall("before"):
                await switched.wait()
                return await self._pass_on(request)
            case Stall():
                response = await self._pass_on(request)
                await switched.wait()
                return response
            case Cut("before"):
                return _cut(request)
            case Cut("response"):
                return await self._cut_response(request, await self._pass_on(request))
            case Cut():
                await self._pass_on(request)
                return _cut(request)

    async def _pass_on(self, request: web.Request, body: bytes | None = None) -> web.Response:
        """Return Elasticsearch's response to this request, or to it with another body."""
        if body is None:
            body = await request.read()
        async with self._session.request(
            request.method,
            request.rel_url,
            data=BytesIO(body),  # aiohttp warns of long bytes
            headers=_end_to_end(request.headers),
        ) as response:
            return web.Response(
                status=response.status,
                headers=_end_to_end(response.headers),
                body=await response.read(),
            )

    async def _reject_some(self, request: web.Request, share: float) -> web.Response:
        if not request.path.endswith("/_bulk"):
            return await self._pass_on(request)
        lines = (await request.read()).splitlines(keepends=True)  # an action, its document, ...
        items = list(zip(lines[::2], lines[1::2], strict=True))
        rejected = [self._rng.random() < share for _ in items]
        self.rejected += sum(rejected)
        passed = [b"".join(item) for item, no in zip(items, rejected, strict=True) if not no]
        results: Iterator[Any] = iter(())
        if passed:
            response = await self._pass_on(request, b"".join(passed))
            if response.status != HTTPStatus.OK:
                return response
            results = iter(orjson.loads(_body(response))["items"])
        merged = [_REJECTED if no else next(results) for no in rejected]
        return _json(HTTPStatus.OK, {"errors": True, "items": merged})

    async def _cut_response(
        self, request: web.Request, response: web.Response
    ) -> web.StreamResponse:
        """Send the first half of the response, then cut the connection."""
        body = _body(response)
        partial = web.StreamResponse(status=response.status, headers=response.headers)
        partial.content_length = len(body)
        await partial.prepare(request)
        await partial.write(body[: len(body) // 2])
        return _cut(request)


def _cut(request: web.Request) -> web.Response:
    """Cut the client's connection; the returned response is not sent."""
    if request.transport is not None:  # None if the client has disconnected
        request.transport.abort()
    return web.Response()


def _body(response: web.Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


def _json(status: int, body: object) -> web.Response:
    """Return a response that looks like one of Elasticsearch."""
    headers = {"X-elastic-product": "Elasticsearch"}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = "1"  # seconds
    return web.json_response(body, status=status, headers=headers)


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON]
