"""What a broker answers first, without a broker."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataResponse_v1

from deploy.embedded.ports import HOST

_API_VERSIONS, _METADATA = 18, 3


@asynccontextmanager
async def fake_broker(
    brokers: int, listening: socket.socket | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve what a client asks first, and say that this is the one broker, or that there is none.

    Yields its port. It listens there with a socket of its own, unless one is given; with TLS if a
    context is.
    """
    connections: set[asyncio.Task[None]] = set()
    end = listening or socket.create_server((HOST, 0))
    host, port = end.getsockname()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        known: Sequence[tuple[Any, ...]] = [(1, host, port, None)] * brokers
        responses = {
            _API_VERSIONS: ApiVersionResponse_v0(0, [(_API_VERSIONS, 0, 0), (_METADATA, 1, 1)]),
            _METADATA: MetadataResponse_v1(known, 1, []),
        }
        with closing(writer), suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                kind, _, number = struct.unpack_from(">hhi", await reader.readexactly(size))
                response = struct.pack(">i", number) + responses[kind].encode()
                writer.write(struct.pack(">i", len(response)) + response)

    server = await asyncio.start_server(serve, sock=end, ssl=tls)
    try:
        yield port
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()
