"""A worker's health and metrics over HTTP, on `CQRS_HEALTH_PORT`.

    GET /live     200 while the worker's event loops turn
    GET /startup  200 since each of its partitions was taken over, waits for a server or is parked
    GET /ready    200 while all its partitions run and none is further behind than CQRS_READY_LAG
    GET /health   200 while every partition is started and waits for no server
    GET /metrics  what `streams/metrics.py` defines, for Prometheus

Else they return 503. None of them asks a server. Only `/live` is for killing the process, since
that cannot mend an outage: a worker continues by itself afterwards, and ends by itself if it
cannot. `/ready` and `/health` say in their bodies what is parked, waiting or behind.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from faust.types import TP
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)

from models.errors import Fatal
from streams import metrics
from streams.logs import name_of
from streams.worker.gauges import PartitionGauges
from streams.worker.partition import PartitionReport, PartitionStatus
from streams.worker.partitions import Partitions

# A thread whose event loop has not turned for so long is blocked. Nothing here takes a second.
_BLOCKED_AFTER_S = 10.0

Answer = tuple[int, dict[str, Any]]
"""HTTP status, and the body for JSON."""


class Health:
    """What a worker says of itself."""

    def __init__(
        self,
        partitions: Partitions,
        gauges: PartitionGauges,
        *,
        consumer_turned: Callable[[], float | None],
        ready_lag: float | None,
    ) -> None:
        """Report on the partitions of one worker.

        Args:
            partitions: those it owns.
            gauges: their metrics.
            consumer_turned: returns when the event loop of the consumer's thread last turned
                (`time.monotonic`); None before it has started.
            ready_lag: seconds that a partition of a ready worker may be behind; None: any number.
        """
        self._partitions = partitions
        self._registry = CollectorRegistry()
        self._registry.register(gauges)
        self._consumer_turned = consumer_turned
        self._ready_lag = ready_lag
        self._has_started = False

    def live(self) -> Answer:
        """Return whether the event loops turn; that this one does is shown by the answer."""
        turned = self._consumer_turned()
        blocked_s = 0.0 if turned is None else time.monotonic() - turned
        return _answer(blocked_s < _BLOCKED_AFTER_S, {"consumer_blocked_seconds": blocked_s})

    def startup(self) -> Answer:
        """Return whether everything was started once; a standby has joined its group."""
        starting = [
            name_of(tp)
            for tp, report in self._partitions.reports().items()
            if report.state == "starting"
        ]
        joined = self._partitions.joined
        self._has_started = self._has_started or (joined and not starting)
        return _answer(self._has_started, {"joined": joined, "starting": starting})

    def ready(self) -> Answer:
        """Return whether all partitions run and keep up, and why not."""
        now = time.time()
        reports = self._partitions.reports()
        why = [line for tp, report in sorted(reports.items()) for line in self._why(tp, report)]
        if not self._partitions.joined:
            why.append("the worker has not joined its consumer group yet")
        return _answer(
            not why,
            {
                "why": why,
                "partitions": [_describe(tp, one, now) for tp, one in sorted(reports.items())],
            },
        )

    def health(self) -> Answer:
        """Return whether every partition is started and waits for no server."""
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
            for tp, status in sorted(self._partitions.statuses().items())
        ]
        return _answer(all(one["ok"] for one in partitions), {"partitions": partitions})

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(metrics.WORKER) + generate_latest(self._registry)

    def _why(self, tp: TP, report: PartitionReport) -> Iterator[str]:
        lag = report.lag_seconds(time.time())
        if report.state == "parked":
            yield f"{name_of(tp)} is parked: {report.status.parked}"
        elif report.state != "running":
            yield f"{name_of(tp)} is {report.state}"
        elif self._ready_lag is not None and lag is not None and lag > self._ready_lag:
            yield f"{name_of(tp)} is {lag:.0f} s behind"


def _answer(ok: bool, body: dict[str, Any]) -> Answer:
    return (200 if ok else 503), {"ok": ok, **body}


def _describe(tp: TP, report: PartitionReport, now: float) -> dict[str, Any]:
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "state": report.state,
        "position": report.status.position,
        "end": report.end,
        "lag_records": report.lag_records,
        "lag_seconds": report.lag_seconds(now),
        "failures": report.status.failures,
        "parked": report.status.parked,
    }


def _is_healthy(status: PartitionStatus) -> bool:
    return status.position is not None and not status.is_waiting and status.parked is None


@asynccontextmanager
async def serving_health(host: str, port: int, health: Health) -> AsyncIterator[str]:
    """Serve health and metrics at this address and port until the block ends.

    Yields:
        The URL. Its port is a free one if ``port`` is 0.

    Raises:
        Fatal: the port is in use, or this host has no such address.
    """

    def respond(answer: Callable[[], Answer]) -> Callable[[web.Request], Any]:
        async def handle(_: web.Request) -> web.Response:
            status, body = answer()
            return web.json_response(body, status=status)

        return handle

    async def expose(_: web.Request) -> web.Response:
        content_type = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        return web.Response(body=health.exposition(), headers=content_type)

    # When a counter was created says nothing, and would double the number of samples.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    app = web.Application()
    for answer in (health.live, health.startup, health.ready, health.health):
        app.router.add_get(f"/{answer.__name__}", respond(answer))
    app.router.add_get("/metrics", expose)
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
