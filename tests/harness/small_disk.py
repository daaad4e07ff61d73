"""A small disk that can be filled: a file system of its own, which needs no privileges.

A process in a user namespace holds a tmpfs, and others reach that through `/proc`. So whatever is
written there gets the system's own answer when it is full (ENOSPC), also through a memory map.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from deploy.waiting import Turns
from models.errors import Fatal

_PIECE_BYTES = 4096
_REFILL_INTERVAL_S = 0.02
_MOUNTED = b"mounted\n"


class SmallDisk:
    """A mounted file system; `path` is its root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Leave no space for the block; what others free meanwhile is taken as well."""
        self._fill()
        filling = asyncio.create_task(self._keep_filling())
        try:
            yield
        finally:
            filling.cancel()
            with suppress(asyncio.CancelledError):
                await filling
            self._filler.unlink()

    async def _keep_filling(self) -> None:
        async for _ in Turns(_REFILL_INTERVAL_S):
            self._fill()

    def _fill(self) -> None:
        piece = bytes(_PIECE_BYTES)
        with suppress(OSError), self._filler.open("ab", buffering=0) as filler:
            while filler.write(piece):
                pass


@contextmanager
def small_disk(mib: int) -> Iterator[SmallDisk]:
    """Mount a disk of this size for the block.

    Raises:
        Fatal: this system does not allow it.
    """
    with tempfile.TemporaryDirectory(prefix="cqrs-disk-") as folder:
        # `cat` ends with this process, which holds the other end of its input.
        mount = f'mount -t tmpfs -o size={mib}m,mode=700 small "$1" && echo mounted && exec cat'
        try:
            holder = subprocess.Popen(
                ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "-", folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise Fatal(f"a small disk needs unshare(1) of util-linux: {error.strerror}") from error
        with holder:
            try:
                assert holder.stdout is not None
                assert holder.stderr is not None
                if holder.stdout.readline() != _MOUNTED:
                    raise Fatal(
                        "a small disk needs user namespaces, which this system does not allow: "
                        + holder.stderr.read().decode().strip()
                    )
                yield SmallDisk(Path(f"/proc/{holder.pid}/root{folder}"))
            finally:
                holder.kill()
