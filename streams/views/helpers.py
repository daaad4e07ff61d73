"""Helper processes: other processes of this program that work for it, each at one thing at a time.

One Python process uses one core. What is split, like the partitions of a topic, is done by as many
processes as there are cores for. A helper ends with its parent, however that ends, and with the
block of `open_helpers`; it is killed then, so it must do nothing that cannot be interrupted.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple, TypeVar

from models.errors import Fatal, Transient
from streams.worker.process import tune_gc

T = TypeVar("T")

Work = Callable[..., Coroutine[Any, Any, T]]
"""A function of a module, called with `report=...`; it and its arguments are pickled."""

Report = Callable[[int, int], None]
"""Called with the number of a thing, and how far that is."""

_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy threads and connections badly


class _Message(NamedTuple):
    kind: Literal["report", "done", "failed"]
    content: Any


class Helper:
    """One helper process; `open_helpers` starts and ends it."""

    def __init__(self) -> None:
        """Start the process."""
        self._connection, there = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()

    async def run(self, work: Work[T], *args: Any, report: Report) -> T:
        """Run `work(*args, report=...)` in the process; function and arguments are pickled.

        If this is cancelled, the process is killed.

        Raises:
            Fatal: An argument cannot be pickled.
            Transient: The process was killed.
            Exception: What `work` raises.
        """
        answer = await self._answer(work, args, report=report)
        if answer.kind == "failed":
            raise answer.content
        result: T = answer.content
        return result

    async def _answer(self, *request: Any, report: Report) -> _Message:
        """Send a request, pass reports on, and return the answer."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._connection.fileno(), readable.set)
        try:
            self._send(request)
            while True:
                while self._connection.poll():
                    message: _Message = self._connection.recv()
                    if message.kind != "report":
                        return message
                    report(*message.content)
                readable.clear()
                await readable.wait()
        except asyncio.CancelledError:
            self._process.kill()
            raise
        except (EOFError, OSError):
            self._process.join()
            raise Transient(
                f"a helper process ended ({_how(self._process.exitcode)}): run this again; it "
                "continues from here"
            ) from None
        finally:
            loop.remove_reader(self._connection.fileno())

    def _send(self, request: tuple[Any, ...]) -> None:
        try:
            self._connection.send(request)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise Fatal(
                f"another process cannot be given all it needs: {error}. Functions of a view have "
                "to be those of a module, not lambdas; or run this with --processes 1"
            ) from None

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


@asynccontextmanager
async def open_helpers(number: int) -> AsyncIterator[Sequence[Helper]]:
    """Start this number of helpers, and end them with the block."""
    helpers: list[Helper] = []
    try:
        helpers.extend(Helper() for _ in range(number))
        yield helpers
    finally:
        for helper in helpers:
            helper.end()


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"code {code}"
    return signal.Signals(-code).name


def _serve(connection: Connection) -> None:
    """Do what the parent asks for, one thing after the other, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tune_gc()

    def report(number: int, done: int) -> None:
        connection.send(_Message("report", (number, done)))

    while True:
        work, args = connection.recv()
        try:
            result = asyncio.run(work(*args, report=report))
        except Exception as error:
            connection.send(_Message("failed", error))
        else:
            connection.send(_Message("done", result))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "it is a helper"
    parent.join()
    os._exit(1)
