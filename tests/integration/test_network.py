"""The network of the fault suite: what is lost arrives late, in order, and only on these links."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from deploy.embedded.ports import HOST
from tests.harness.network import Network, Party


@pytest.fixture
def network() -> Iterator[Network]:
    with Network.running() as running:
        yield running


class _Echo:
    """A server that notes what it gets, and sends it back."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()
        self.serving: list[asyncio.Task[None] | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.append(asyncio.current_task())
        while data := await reader.read(100):
            self.got.put_nowait(data)
            writer.write(data)
        self.got.put_nowait(b"")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def serving(echo: _Echo, network: Network) -> AsyncIterator[int]:
    """Serve behind a proxy of the network until all clients have left; yield the proxy's port."""
    server = await asyncio.start_server(echo, HOST, 0)
    async with server:
        yield network.proxy_to(server.sockets[0].getsockname()[1])
        await asyncio.gather(*filter(None, echo.serving))


async def test_requests_that_are_lost_arrive_when_the_link_is_whole_even_of_who_has_left(
    network: Network,
) -> None:
    echo, other = _Echo(), _Echo()
    async with serving(echo, network) as port, serving(other, network) as other_port:
        me = Party(os.getpid())
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        network.lose({(me, Party(os.getpid(), frozenset([port])))})
        writer.write(b"late")
        writer.close()
        new, new_writer = await asyncio.open_connection(HOST, port)
        new_writer.write(b"new")
        other_reader, other_writer = await asyncio.open_connection(HOST, other_port)
        other_writer.write(b"elsewhere")
        assert await other_reader.readexactly(9) == b"elsewhere"
        assert echo.got.get_nowait() == b"before"
        assert echo.got.empty()
        network.lose(())
        assert await new.readexactly(3) == b"new"
        got = {await echo.got.get() for _ in range(3)}
        assert got == {b"late", b"", b"new"}
        new_writer.close()
        other_writer.close()


async def test_responses_are_lost_and_requests_are_not(network: Network) -> None:
    echo = _Echo()
    async with serving(echo, network) as port:
        me, server = Party(os.getpid()), Party(os.getpid(), frozenset([port]))
        network.lose({(server, me)})
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"request")
        assert await echo.got.get() == b"request"
        responding = asyncio.create_task(reader.readexactly(7))
        writer.write(b", again")
        assert await echo.got.get() == b", again"
        assert not responding.done()
        network.lose(())
        assert await responding == b"request"
        writer.close()


async def test_a_server_that_is_down_is_a_connection_that_ends(network: Network) -> None:
    echo = _Echo()
    async with serving(echo, network) as port:
        pass
    reader, writer = await asyncio.open_connection(HOST, port)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
