"""What the machine must have before a server is started: said in one line, not by a crash."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from models.errors import Fatal

_JVM_MB = 200  # what a server takes besides its heap
_DISK_MB = 500  # of an empty stack and room to begin with


def require_memory(heaps_mb: list[int]) -> None:
    """Fail if servers with these heaps do not fit into the free memory."""
    needed = sum(heap + _JVM_MB for heap in heaps_mb)
    free = psutil.virtual_memory().available >> 20
    if free < needed:
        raise Fatal(f"too little memory: the stack needs {needed} MB, {free} MB are free")


def require_disk(folder: Path) -> None:
    """Fail if the disk of `folder` is as good as full."""
    free = shutil.disk_usage(folder).free >> 20
    if free < _DISK_MB:
        raise Fatal(
            f"too little disk space: the stack needs {_DISK_MB} MB in {folder}, {free} MB are free"
        )


def size_mb(folder: Path) -> int:
    """What the files below `folder` take, in MiB."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):  # servers remove files all the time
                total += (Path(place) / file).stat().st_size
    return total >> 20
