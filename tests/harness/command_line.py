"""The `cqrs` command line as a process, and the folders that programs run in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deploy.environment import child_environment
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
"""The checkout."""

_PACKAGES = ("agents", "benchmarks", "deploy", "faust", "models", "streams", "tests")


def cqrs(
    settings: Settings, *arguments: str, given: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, with `given` on its standard input.

    Raises:
        TimeoutExpired: it did not end within `timeout` seconds.
    """
    done = subprocess.run(
        cqrs_command(*arguments),
        cwd=ROOT,
        env=child_environment(settings),
        input=given,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def cqrs_command(*arguments: str) -> list[str]:
    """Return the command that runs `cqrs` with these arguments."""
    return [sys.executable, "-m", "deploy.cli", *arguments]


def add_foreign_packages(folder: Path) -> None:
    """Write packages into a folder that have the names of ours, and fail when imported."""
    for name in _PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('a foreign package')\n")
