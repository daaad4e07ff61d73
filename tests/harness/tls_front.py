"""A TLS endpoint in front of a server, as a load balancer is one, with a certificate of its own."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trustme

from deploy.embedded.ports import HOST

_READ_BYTES = 64 * 1024


@asynccontextmanager
async def tls_front(port: int, certificate: trustme.LeafCert, ca_file: Path) -> AsyncIterator[int]:
    """Pass connections on to the server's TLS port during the block; yields the port of the front.

    Args:
        port: of the server.
        certificate: shown to clients.
        ca_file: CA of the server's own certificate.
    """
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(shown)
    trusted = ssl.create_default_context(cafile=ca_file)
    serving: set[asyncio.Task[None]] = set()
    writers: list[StreamWriter] = []

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(asyncio.CancelledError, OSError):
            there = await asyncio.open_connection(HOST, port, ssl=trusted)
            writers.extend([writer, there[1]])
            ways = [
                asyncio.create_task(_pass_on(reader, there[1])),
                asyncio.create_task(_pass_on(there[0], writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                there[1].close()
        writer.close()
        serving.discard(task)

    front = await asyncio.start_server(serve, HOST, 0, ssl=shown)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        # With TLS, one that is closed waits for an answer.
        await asyncio.gather(*(one.wait_closed() for one in writers), return_exceptions=True)


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(_READ_BYTES):
        writer.write(data)
        await writer.drain()
