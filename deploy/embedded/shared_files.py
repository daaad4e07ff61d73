"""Files that several processes share: atomic writes, and locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import Fatal


def write_atomically(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write `text` so that readers see the old file or the new one, never a part of it.

    `mode` says who may read and write it, less what the umask forbids.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    part.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block; wait until it is free.

    The kernel releases the lock when the process ends, even by kill -9.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block; do not wait for it.

    Raises:
        Fatal: another process holds it. `otherwise` is the line that says so.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fatal(otherwise) from None
        yield
