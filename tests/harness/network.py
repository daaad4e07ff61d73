"""A network between processes of this machine, whose links can be cut one way or both ways.

    with Network.running() as network:
        cluster = ...EmbeddedCluster.temporary(proxy_of=network.proxy_to)
        network.lose({(worker, broker)})     # what the worker sends does not arrive
        network.lose({(worker, broker), (broker, worker)})     # cut off, both ways
        network.lose(())                     # it is whole again

It consists of TCP proxies on 127.0.0.1, one in front of each port that a server listens on, and
behaves as TCP does when packets are lost: what was sent meanwhile is not gone. It arrives, in
order, when the link is whole again, even if its sender has closed the connection by then.
Connections that are opened meanwhile are accepted, and nothing comes through them.

Who has opened a connection is found out by its process, so that needs no configuration of a client.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from deploy.embedded.ports import HOST

T = TypeVar("T")

_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Party:
    """A process that takes part, and the ports of the proxies in front of it if it is a server."""

    pid: int
    ports: frozenset[int] = frozenset()


Link = tuple[Party, Party]
"""Sender and receiver: one direction, whoever of them has opened the connection."""


@dataclass
class _Connection:
    client_port: int
    server_port: int
    """The proxy's."""
    requests_lost: bool = False
    responses_lost: bool = False


class Network:
    """Proxies that run in a thread of their own; its methods may be called from any other."""

    def __init__(self) -> None:
        """Prepare; `running` runs it."""
        self._loop = asyncio.new_event_loop()
        self._connections: list[_Connection] = []
        self._lost: frozenset[Link] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Network]:
        """Run a network during the block; then all its connections are closed."""
        network = cls()
        thread = threading.Thread(target=network._loop.run_forever, name="network", daemon=True)
        thread.start()
        try:
            yield network
        finally:
            network._run(network._close())
            network._loop.call_soon_threadsafe(network._loop.stop)
            thread.join()
            network._loop.close()

    def proxy_to(self, port: int) -> int:
        """Open a proxy to a port, on which a server need not listen yet; return the proxy's."""
        return self._run(self._open(port))

    def lose(self, links: Iterable[Link]) -> None:
        """Let nothing through on these links from now on, and everything on all others."""
        self._run(self._lose(frozenset(links)))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self, port: int) -> int:
        server = await asyncio.start_server(partial(self._accept, port), HOST, 0)
        self._tasks.add(asyncio.create_task(server.serve_forever()))
        proxy_port: int = server.sockets[0].getsockname()[1]
        return proxy_port

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lose(self, links: frozenset[Link]) -> None:
        self._lost = links
        self._judge(self._connections)
        self._changed.set()
        self._changed = asyncio.Event()

    def _judge(self, connections: Iterable[_Connection]) -> None:
        """Decide for these connections which directions are lost."""
        for one in connections:
            socket = f"socket:[{_inode(one.client_port, one.server_port)}]" if self._lost else ""
            one.requests_lost = any(
                one.server_port in receiver.ports and _has_open(sender.pid, socket)
                for sender, receiver in self._lost
            )
            one.responses_lost = any(
                one.server_port in sender.ports and _has_open(receiver.pid, socket)
                for sender, receiver in self._lost
            )

    async def _accept(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(
            writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]
        )
        self._judge([connection])
        self._connections.append(connection)
        ends = [writer]
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, port)
            ends.append(server_writer)
            await asyncio.gather(
                self._pass_on(reader, server_writer, lambda: connection.requests_lost),
                self._pass_on(server_reader, writer, lambda: connection.responses_lost),
            )
        except (OSError, asyncio.CancelledError):
            # The server is down, somebody has reset the connection, or the network is closed.
            for end in ends:
                end.transport.abort()
        finally:
            self._connections.remove(connection)
            for end in ends:
                end.close()
            await asyncio.gather(*(end.wait_closed() for end in ends), return_exceptions=True)
            self._tasks.discard(task)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_lost: Callable[[], bool],
    ) -> None:
        """Pass on what one side sends, up to its end; what is read while it is lost waits."""
        while True:
            try:
                data = await reader.read(_READ_BYTES)
                error = None
            except OSError as reset:
                error = reset
            while is_lost():
                await self._changed.wait()
            if error is not None:
                raise error
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


def _inode(client_port: int, server_port: int) -> str:
    """Return the inode of the client's end of a connection on 127.0.0.1; it is in no folder."""
    ends = rf": \w*0100007F:{client_port:04X} \w*0100007F:{server_port:04X} "
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):  # as in proc(5)
        found = re.search(ends + ".*", Path(table).read_text())
        if found is not None:
            return found.group().split()[9]
    return ""


def _has_open(pid: int, socket: str) -> bool:
    """Return whether a process has this file open."""
    with suppress(OSError):  # it has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if file.readlink().name == socket:
                    return True
    return False
