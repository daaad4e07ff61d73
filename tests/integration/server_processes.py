"""The processes of embedded servers, and of Python scripts that own some."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

SERVER = "deploy.embedded.jvm"


def eventually(condition: Callable[[], object], within: float = 60) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.05)


def servers_of(home: Path) -> list[psutil.Process]:
    """The server processes that work in `home`, whoever has started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if SERVER in process.cmdline() and process.cwd() == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def python(script: str, home: Path | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **({"CQRS_STACK_HOME": str(home)} if home else {})}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
