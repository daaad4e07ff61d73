"""A worker's health over HTTP: how far each of its partitions is, and whether it waits.

`GET /health` returns 200 while every partition that the worker owns is started and waits for no
server, else 503. The body has the reason if a partition is parked. Use it for routing and alerts,
never to kill the process: a worker continues by itself after an outage, and ends by itself if it
cannot.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from faust.types import TP

from models.errors import Fatal
from streams.worker.partition import PartitionStatus

Statuses = Mapping[TP, PartitionStatus]


def health_of(statuses: Statuses) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the JSON body for these partitions."""
    partitions = [
        {
            "topic": tp.topic,
            "partition": tp.partition,
            "position": status.position,
            "failures": status.failures,
            "waits": status.is_waiting,
            "parked": status.parked,
            "ok": _is_healthy(status),
        }
        for tp, status in sorted(statuses.items())
    ]
    ok = all(one["ok"] for one in partitions)
    return (200 if ok else 503), {"ok": ok, "partitions": partitions}


def _is_healthy(status: PartitionStatus) -> bool:
    return status.position is not None and not status.is_waiting and status.parked is None


@asynccontextmanager
async def serving_health(
    host: str, port: int, statuses: Callable[[], Statuses]
) -> AsyncIterator[str]:
    """Serve `GET /health` at this address and port until the block ends.

    Yields:
        The URL. Its port is a free one if ``port`` is 0.

    Raises:
        Fatal: the port is in use, or this host has no such address.
    """

    async def respond(_: web.Request) -> web.Response:
        status, body = health_of(statuses())
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/health", respond)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Fatal(
                    f"/health cannot listen on {host} port {port}: {error.strerror}; "
                    "check CQRS_HEALTH_HOST"
                ) from None
            raise Fatal(
                f"port {port} is in use: choose another CQRS_HEALTH_PORT, or 0 for any free one "
                "(each process of a worker needs its own)"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}/health"
    finally:
        await runner.cleanup()
