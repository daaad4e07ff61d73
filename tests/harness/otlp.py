"""A collector of traces: it takes what processes export by OTLP, over HTTP."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Spans that were exported to `url`, in the order in which they came."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[tuple[str, Span]] = []
        """With the name of the service that made it."""

    def of_trace(self, trace_id: int) -> list[tuple[str, Span]]:
        """Return the spans of one trace."""
        wanted = trace_id.to_bytes(16, "big")
        return [(service, span) for service, span in self.spans if span.trace_id == wanted]

    async def take(self, request: web.Request) -> web.Response:
        """Take an export."""
        body = await request.read()
        if body[:2] == b"\x1f\x8b" and request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.spans += [
                (named["service.name"], span)
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector during the block, on a free port."""
    collector, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()
