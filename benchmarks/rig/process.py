"""A contestant that is a process."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import psutil  # type: ignore[import-untyped]

from deploy.environment import child_environment
from deploy.supervisor import running
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.settings import Settings

_LOG_LINES = 20


class RunningContestant:
    """A running process; only if you wait for `finished` it may end by itself."""

    def __init__(self, process: Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def check(self) -> None:
        """Check that the process has not ended.

        Raises:
            Fatal: it has; the message contains the last lines of its log.
        """
        if self._process.poll() is not None:
            raise self._failure()

    async def finished(self, *, timeout: float) -> float:
        """Wait until the process has ended, and return the CPU seconds of all its threads.

        No other child of this process may end meanwhile.

        Raises:
            Fatal: it did not end within `timeout` seconds, or its exit code is not 0.
        """
        before = _cpu_seconds_of_ended_children()
        await wait_until(self._has_ended, timeout=timeout, what=f"{self._log.stem} ends")
        if self._process.returncode != 0:
            raise self._failure()
        return _cpu_seconds_of_ended_children() - before

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _failure(self) -> Fatal:
        last = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        code = self._process.returncode
        return Fatal(f"{self._log.stem} ended with code {code}: {last}")

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that all its threads have used so far."""
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        return int(psutil.Process(self._process.pid).memory_info().rss)


@contextmanager
def contestant(
    command: Sequence[str], settings: Settings, log: Path
) -> Iterator[RunningContestant]:
    """Start a process with these settings; stop it at the end of the block."""
    with running(command, child_environment(settings), log) as process:
        yield RunningContestant(process, log)


def _cpu_seconds_of_ended_children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
