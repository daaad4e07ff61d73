"""Read lines from a file or a pipe as they arrive, without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

_READ_BYTES = 1 << 20
_READ_WAIT_S = 0.05


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
    """Yield blocks as they can be read, to the end; an empty one while nothing is available."""
    loop = asyncio.get_running_loop()
    read1 = getattr(stream, "read1", stream.read)
    while True:
        reading = loop.run_in_executor(None, read1, _READ_BYTES)
        done, _ = await asyncio.wait({reading}, timeout=_READ_WAIT_S)
        if not done:
            yield b""
        data: bytes = await reading
        if not data:
            return
        yield data
