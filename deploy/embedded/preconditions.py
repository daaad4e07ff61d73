"""Check memory and disk before a server starts: one clear line is better than a crash later."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from models.errors import Fatal

_JVM_MB = 200  # memory of a server besides its heap
_DISK_MB = 500  # for an empty stack and some data


def require_memory(heaps_mb: list[int]) -> None:
    """Check that servers with these heaps fit into the free memory.

    Raises:
        Fatal: they do not.
    """
    needed = sum(heap + _JVM_MB for heap in heaps_mb)
    free = psutil.virtual_memory().available >> 20
    if free < needed:
        raise Fatal(f"too little memory: the stack needs {needed} MB, {free} MB are free")


def require_disk(folder: Path) -> None:
    """Check that the disk of `folder` has 500 MB of free space.

    Raises:
        Fatal: it does not.
    """
    free = shutil.disk_usage(folder).free >> 20
    if free < _DISK_MB:
        raise Fatal(
            f"too little disk space: the stack needs {_DISK_MB} MB in {folder}, {free} MB are free"
        )


def size_mb(folder: Path) -> int:
    """Return the size of all files below `folder`, in MiB."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):  # servers remove files all the time
                total += (Path(place) / file).stat().st_size
    return total >> 20
