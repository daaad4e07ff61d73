"""What the tests of the read side share: a view of their own, events, and a proxy that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from uuid import UUID

import aiohttp
from aiohttp import web

from agents.user_views import USER_VIEWS
from deploy.faults.deployment import Servers, new_settings
from models.events import UserEvent, UserRegistered
from models.messages import EventRecord, Source
from streams.elasticsearch import connect
from streams.settings import Settings
from streams.view_store import ViewStore, open_view_store

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
_ID = UUID("22222222-2222-4222-8222-222222222222")
_SOURCE = Source("users.commands.v1", 0, 0)

Record = EventRecord[UserEvent]


def record(user_id: str, sequence: int, event: UserEvent, at: datetime = NOON) -> Record:
    """An event in its envelope; each is a second later than the one before."""
    return EventRecord(
        id=_ID,
        aggregate_id=user_id,
        sequence=sequence,
        timestamp=at + timedelta(seconds=sequence),
        command_id=_ID,
        correlation_id=None,
        causation_id=None,
        source=_SOURCE,
        event=event,
    )


def registered(email: str, last_name: str = "Müller") -> UserRegistered:
    """A registration of Anna with this address."""
    return UserRegistered(email, "Anna", last_name, "web")


@asynccontextmanager
async def namespace(servers: Servers) -> AsyncIterator[Settings]:
    """Settings whose view nobody else uses; its index is deleted at the end, if there is one."""
    settings = new_settings(servers)
    try:
        yield settings
    finally:
        await delete_view(settings)


async def delete_view(settings: Settings) -> None:
    """Delete the index of the settings' view, if there is one."""
    async with connect(settings, timeout=30) as client:
        await client.options(ignore_status=404).indices.delete(
            index=f"{settings.namespace}{USER_VIEWS.name}"
        )


@asynccontextmanager
async def user_views(settings: Settings, *, timeout: float = 30) -> AsyncIterator[ViewStore]:
    """The store of the settings' view, with its index."""
    async with open_view_store(settings, USER_VIEWS, timeout=timeout) as store:
        await store.create_if_missing()
        yield store


class FaultProxy:
    """Passes requests on to Elasticsearch, or fails as `fault` says, for those to `paths`.

    `refuse`: the connection is cut before the request is passed on; `cut`: after it was answered;
    `hang`: it is passed on and the answer never comes; a number: that status is answered.
    """

    def __init__(self, upstream: str) -> None:
        self.url = ""
        self.fault: str | int | None = None
        self.paths = ""
        self.requests: list[str] = []
        self.faulted = asyncio.Event()  # a request has met the fault
        self._upstream = upstream
        self._released = asyncio.Event()
        self._request = asyncio.Condition()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FaultProxy]:
        """The proxy on a free port."""
        async with aiohttp.ClientSession(skip_auto_headers=("Accept-Encoding",)) as self._session:
            server = web.Server(self._handle)
            runner = web.ServerRunner(server)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            try:
                yield self
            finally:
                self.fail(None)
                await runner.cleanup()

    def fail(self, fault: str | int | None, paths: str = "") -> None:
        """From now on, or no more."""
        self.fault, self.paths = fault, paths
        self.faulted.clear()
        self._released.set()  # who hangs in the fault before is cut off
        self._released = asyncio.Event()

    async def wait_for_requests(self, count: int) -> None:
        """Until so many more have come."""
        most = len(self.requests) + count
        async with self._request:
            waiting = self._request.wait_for(lambda: len(self.requests) >= most)
            await asyncio.wait_for(waiting, 30)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self._request:
            self.requests.append(request.path)
            self._request.notify_all()
        fault = self.fault if self.paths in request.path else None
        body = await request.read()
        if fault is None:
            return await self._pass_on(request, body)
        if isinstance(fault, int):
            self.faulted.set()
            return web.json_response(
                {"error": {"type": "fault", "reason": "the proxy"}, "status": fault},
                status=fault,
                headers={"X-elastic-product": "Elasticsearch"},
            )
        if fault != "refuse":
            await self._pass_on(request, body)
        self.faulted.set()
        if fault == "hang":
            await self._released.wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> web.Response:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("accept", "content-type")
        }
        async with self._session.request(
            request.method, self._upstream + request.raw_path, data=body, headers=headers
        ) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() in ("content-type", "x-elastic-product")
                },
            )
