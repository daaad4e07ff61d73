"""Lines from a file or a pipe, as they come, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

_READ = 1 << 20


class Lines:
    """Numbers and cuts lines out of what was read; a line without an end is never kept whole."""

    def __init__(self, longest: int) -> None:
        """Lines of more than `longest` bytes are given as None."""
        self._longest = longest
        self._number = 0
        self._rest = b""
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that `data` completes, with their numbers, from 1."""
        *complete, rest = (self._rest + data).split(b"\n")
        self._rest = b""
        for line in complete:
            yield self._cut(line)
        self._too_long = self._too_long or len(rest) > self._longest
        self._rest = b"" if self._too_long else rest

    def end(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, if it has no end."""
        if self._rest or self._too_long:
            yield self._cut(self._rest)

    def _cut(self, line: bytes) -> tuple[int, bytes | None]:
        too_long = self._too_long or len(line) > self._longest
        self._too_long = False
        self._number += 1
        return self._number, None if too_long else line


async def read_available(stream: BinaryIO) -> AsyncIterator[bytes]:
    """Whatever can be read at a time; an empty read says that nothing more is there for now."""
    loop = asyncio.get_running_loop()
    read1 = getattr(stream, "read1", stream.read)
    while True:
        reading = loop.run_in_executor(None, read1, _READ)
        done, _ = await asyncio.wait({reading}, timeout=0.05)
        if not done:
            yield b""
        data: bytes = await reading
        if not data:
            return
        yield data
