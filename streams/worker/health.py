"""A worker's health over HTTP: whether it gets on, and what it waits for.

`GET /health` answers 200 when every partition that the worker owns gets on, and 503 while one is
being started or waits for a server. That is for who routes work or wakes people, and never
a reason to kill the process: it goes on by itself, and ends by itself if it cannot.
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

Standings = Mapping[TP, PartitionStatus]


def health_of(standings: Standings) -> tuple[int, dict[str, Any]]:
    """The status and the body of an answer."""
    partitions = [
        {
            "topic": tp.topic,
            "partition": tp.partition,
            "position": standing.position,
            "failures": standing.failures,
            "waits": standing.is_waiting,
            "ok": _is_healthy(standing),
        }
        for tp, standing in sorted(standings.items())
    ]
    ok = all(one["ok"] for one in partitions)
    return (200 if ok else 503), {"ok": ok, "partitions": partitions}


def _is_healthy(standing: PartitionStatus) -> bool:
    return standing.position is not None and not standing.is_waiting


@asynccontextmanager
async def serving_health(port: int, standings: Callable[[], Standings]) -> AsyncIterator[int]:
    """Answer on this port of all (IPv4) addresses, for the time of the block.

    Returns:
        The port: any free one for 0.

    Raises:
        Fatal: It is in use.
    """

    async def answer(_: web.Request) -> web.Response:
        status, body = health_of(standings())
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/health", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "0.0.0.0", port)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Fatal(
                f"port {port} is in use: choose another CQRS_HEALTH_PORT, or 0 for any free one "
                "(each process of a worker needs its own)"
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
