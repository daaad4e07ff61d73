"""A contestant that is a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.connect import environment
from deploy.workers import running
from models.errors import Fatal
from streams.settings import Settings

_LOG_LINES = 20


@contextmanager
def contestant(
    command: Sequence[str], settings: Settings, log: Path
) -> Iterator[Callable[[], None]]:
    """The process for the time of the block, and what raises Fatal if it has ended before."""
    with running(command, environment(settings), log) as process:

        def check() -> None:
            if process.poll() is not None:
                last = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
                raise Fatal(f"{log.stem} ended with code {process.returncode}: {last}")

        yield check
