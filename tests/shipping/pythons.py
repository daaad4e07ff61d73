"""The Pythons of this machine that the project is for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

MINORS = range(10, 15)  # of Python 3


@cache
def pythons() -> Mapping[int, Path]:
    """Return a Python of each minor version that there is: of the path, or of pyenv."""
    return {minor: path for minor in MINORS for path in _of(minor)}


def tried() -> str:
    """Return in one line which there are, and which are not."""
    there = ", ".join(map(str, pythons().values())) or "none"
    missing = ", ".join(f"3.{minor}" for minor in MINORS if minor not in pythons())
    return f"the package is tried on {there}; not on this machine: {missing or 'none'}"


def _of(minor: int) -> Iterator[Path]:
    candidates = [Path(shutil.which(f"python3.{minor}") or "none")]
    candidates += Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")
    for candidate in candidates:
        if candidate.exists():
            done = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if done.stdout.startswith(f"Python 3.{minor}."):  # a shim of pyenv may be of another
                yield candidate
                return
