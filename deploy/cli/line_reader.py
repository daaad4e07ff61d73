"""Read lines from a file or a pipe as they arrive, without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import BinaryIO

import async_timeout

_READ_BYTES = 1 << 20
_READ_WAIT_S = 0.05
_MAX_BLOCKS = 4  # read ahead


class LineSplitter:
    """Splits blocks of bytes into numbered lines; keeps nothing of a line that is too long."""

    def __init__(self, max_bytes: int) -> None:
        """Lines of more than `max_bytes` are returned as None."""
        self._max_bytes = max_bytes
        self._number = 0
        self._rest = b""  # the start of a line whose end was not read yet
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield the lines that `data` completes, each with its number, counted from 1."""
        *complete, rest = (self._rest + data).split(b"\n")
        self._rest = b""
        for line in complete:
            yield self._numbered(line)
        self._too_long = self._too_long or len(rest) > self._max_bytes
        self._rest = b"" if self._too_long else rest

    def end(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the last line, if no newline ended it."""
        if self._rest or self._too_long:
            yield self._numbered(self._rest)

    def _numbered(self, line: bytes) -> tuple[int, bytes | None]:
        too_long = self._too_long or len(line) > self._max_bytes
        self._too_long = False
        self._number += 1
        return self._number, None if too_long else line


async def read_available(stream: BinaryIO) -> AsyncIterator[bytes]:
    """Yield blocks as they can be read, to the end; an empty one while nothing is available.

    A thread of its own reads. Unlike one of the event loop's executor it does not hold up the end
    of the process, when that is interrupted while the stream has nothing.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes | Exception] = asyncio.Queue()
    room = threading.Semaphore(_MAX_BLOCKS)

    def read_all() -> None:
        block: bytes | Exception = b" "
        while block and not isinstance(block, Exception):
            room.acquire()
            try:
                # Not through the buffer: its lock would be held when the process ends.
                block = os.read(stream.fileno(), _READ_BYTES)
            except Exception as error:
                block = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(blocks.put_nowait, block)

    threading.Thread(target=read_all, daemon=True).start()
    while True:
        try:
            async with async_timeout.timeout(_READ_WAIT_S):
                block = await blocks.get()
        except asyncio.TimeoutError:
            yield b""
            continue
        room.release()
        if isinstance(block, Exception):
            raise block
        if not block:
            return
        yield block
