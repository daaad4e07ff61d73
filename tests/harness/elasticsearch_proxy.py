"""A proxy in front of Elasticsearch that can be told at any time to fail, and how.

    async with FaultProxy(stack.elasticsearch_url, rng).serving() as proxy:
        ...                                # workers use `proxy.url`
        proxy.switch(Refuse(503))
        ...
        proxy.switch(None)                 # all goes through again
        proxy.met[Refuse(503)]             # how many requests that was

Real Elasticsearch does all the work; what is passed on is passed on as it is, both ways, if not
compressed. While Elasticsearch itself is away, connections are cut.
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
    """Answer with this status and pass nothing on."""

    status: int


@dataclass(frozen=True)
class Stall:
    """Hold each request until the next switch.

    Held `before` Elasticsearch has it, it goes there then, late: its sender may long have given up
    and sent newer documents. Held `after`, Elasticsearch has done it and nobody hears of that.
    """

    moment: Literal["before", "after"]


@dataclass(frozen=True)
class Cut:
    """Cut the connection: before Elasticsearch has the request, after it, or amid its answer."""

    moment: Literal["before", "amid", "after"]


@dataclass(frozen=True)
class RejectItems:
    """Answer this share of the items of a bulk as if Elasticsearch had no room for them.

    The others are passed on, and the answers are put together in the order of the items.
    """

    share: float


@dataclass(frozen=True)
class Delay:
    """Pass every request on so many seconds later."""

    seconds: float


Fault = Refuse | Stall | Cut | RejectItems | Delay

# What is said of one connection only, and of compression, which aiohttp undoes.
_NOT_PASSED_ON = frozenset(
    {
        *("connection", "content-length", "host", "keep-alive", "transfer-encoding"),
        *("accept-encoding", "content-encoding"),
    }
)

_NO_ROOM = {"type": "es_rejected_execution_exception", "reason": "rejected by the fault proxy"}
_REJECTED = {"index": {"status": 429, "error": _NO_ROOM}}


class FaultProxy:
    """The proxy on 127.0.0.1; `rng` chooses the items that are rejected."""

    def __init__(self, upstream: str, rng: random.Random) -> None:
        self.url = ""
        self.requests: Counter[str] = Counter()
        """Requests that came, by the last part of their path, as in `_bulk`."""
        self.met: Counter[Fault] = Counter()
        """Requests that came under each fault."""
        self.rejected = 0
        """Items of bulks that were."""
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
            timeout=aiohttp.ClientTimeout(),  # none: whoever asks has one
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
        """From now on fail like this, or not at all, where `paths` is part of the path.

        Requests that are held go on; all others end under the fault that they met.
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
        except aiohttp.ClientError:  # one of the two ends is gone
            return _cut(request)

    async def _fail(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        self.met[fault] += 1
        switched = self._switched
        match fault:
            case Refuse(status):
                return _json(status, {"error": _NO_ROOM, "status": status})
            case RejectItems(share):
                return await self._reject_some(request, share)
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._pass_on(request)
            case Stall("before"):
                await switched.wait()
                return await self._pass_on(request)
            case Stall():
                answer = await self._pass_on(request)
                await switched.wait()
                return answer
            case Cut("before"):
                return _cut(request)
            case Cut("amid"):
                return await self._break(request, await self._pass_on(request))
            case Cut():
                await self._pass_on(request)
                return _cut(request)

    async def _pass_on(self, request: web.Request, body: bytes | None = None) -> web.Response:
        """Elasticsearch's answer to this request, or to the same one with another body."""
        if body is None:
            body = await request.read()
        async with self._session.request(
            request.method,
            request.rel_url,
            data=BytesIO(body),  # as bytes, aiohttp warns of long ones
            headers=_end_to_end(request.headers),
        ) as answer:
            return web.Response(
                status=answer.status,
                headers=_end_to_end(answer.headers),
                body=await answer.read(),
            )

    async def _reject_some(self, request: web.Request, share: float) -> web.Response:
        if not request.path.endswith("/_bulk"):
            return await self._pass_on(request)
        lines = (await request.read()).splitlines(keepends=True)  # an action, its document, ...
        items = list(zip(lines[::2], lines[1::2], strict=True))
        rejected = [self._rng.random() < share for _ in items]
        self.rejected += sum(rejected)
        passed = [b"".join(item) for item, no in zip(items, rejected, strict=True) if not no]
        answers: Iterator[Any] = iter(())
        if passed:
            answer = await self._pass_on(request, b"".join(passed))
            if answer.status != HTTPStatus.OK:
                return answer
            answers = iter(orjson.loads(_body(answer))["items"])
        merged = [_REJECTED if no else next(answers) for no in rejected]
        return _json(HTTPStatus.OK, {"errors": True, "items": merged})

    async def _break(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        """Send the first half of the answer, and hang up."""
        body = _body(answer)
        broken = web.StreamResponse(status=answer.status, headers=answer.headers)
        broken.content_length = len(body)
        await broken.prepare(request)
        await broken.write(body[: len(body) // 2])
        return _cut(request)


def _cut(request: web.Request) -> web.Response:
    """Hang up without a word; what this returns goes nowhere."""
    if request.transport is not None:  # else whoever asked has done so
        request.transport.abort()
    return web.Response()


def _body(answer: web.Response) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def _json(status: int, body: object) -> web.Response:
    """An answer that looks like one of Elasticsearch."""
    headers = {"X-elastic-product": "Elasticsearch"}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = "1"  # seconds
    return web.json_response(body, status=status, headers=headers)


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON]
