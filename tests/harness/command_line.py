"""The `cqrs` command line as a process, and the folders that programs run in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from deploy.environment import child_environment
from deploy.supervisor import Role, running
from streams.settings import Settings
from tests.harness import outputs

ROOT = Path(__file__).parents[2]
"""The checkout."""

_PACKAGES = ("agents", "benchmarks", "deploy", "faust", "models", "streams", "tests")


def cqrs(
    settings: Settings, *arguments: str, given: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, with `given` on its standard input.

    Raises:
        TimeoutExpired: it did not end within `timeout` seconds.
        AssertionError: what it printed as JSON is not of the type that the command declares.
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
    if done.stdout and "--json" in arguments:
        name = outputs.name_of(arguments)
        assert outputs.misfits(name, "json", done.stdout.decode()) == [], name
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class Workers:
    """A running `cqrs worker`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log_text(self) -> str:
        """What it and its workers have logged."""
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend its workers during the block."""
        workers = psutil.Process(self._process.pid).children()
        for worker in workers:
            worker.suspend()
        try:
            yield
        finally:
            for worker in workers:
                worker.resume()


@contextmanager
def running_workers(settings: Settings, role: Role, processes: int, log: Path) -> Iterator[Workers]:
    """Run `cqrs worker` during the block; `log` gets its lines and those of its workers.

    It starts a worker again that ends with another code than 0.
    """
    command = cqrs_command("worker", role, "--processes", str(processes))
    with running(command, child_environment(settings), log, cwd=ROOT) as process:
        yield Workers(process, log)


def cqrs_command(*arguments: str) -> list[str]:
    """Return the command that runs `cqrs` with these arguments."""
    return [sys.executable, "-m", "deploy.cli", *arguments]


def add_foreign_packages(folder: Path) -> None:
    """Write packages into a folder that have the names of ours, and fail when imported."""
    for name in _PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('a foreign package')\n")
