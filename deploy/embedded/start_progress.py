"""What a start of servers shows to the person who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from deploy.colour import new_console
from deploy.progress import seldom, ticking
from streams.progress import ProgressCallback

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


class Progress:
    """Shows nothing."""

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show `text` during the block: something that takes a while."""
        yield

    @contextmanager
    def downloading(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a download of `total` bytes during the block.

        Yields a function to call with the number of bytes that were received since the last call.
        """
        yield lambda _size: None


class TerminalProgress(Progress):
    """Shows progress on standard error: bars on a terminal, otherwise lines every ten seconds."""

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show a spinner and the elapsed time."""
        from rich.progress import SpinnerColumn, TimeElapsedColumn

        with self._shown(text, None, SpinnerColumn(), TimeElapsedColumn()):
            yield

    @contextmanager
    def downloading(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar with the size so far and the remaining time."""
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn
        from rich.table import Column

        size = DownloadColumn(table_column=Column(no_wrap=True, min_width=len("999.9/999.9 MB")))
        columns = BarColumn(bar_width=None), size, TimeRemainingColumn(compact=True)
        with self._shown(text, total, *columns) as advance:
            yield advance

    @contextmanager
    def _shown(
        self, text: str, total: int | None, *columns: ProgressColumn
    ) -> Iterator[Callable[[int], None]]:
        from rich.progress import Progress as Bars
        from rich.progress import TextColumn

        console = new_console(err=True)
        if not console.is_terminal:
            say = partial(click.echo, err=True)
            say(text)
            if total is None:
                with ticking(say, text):
                    yield lambda _size: None
            else:
                yield _megabytes(seldom(say), text, total)
            return
        description = TextColumn("{task.description}")
        with Bars(description, *columns, console=console, transient=True) as bars:
            task = bars.add_task(text, total=total)
            yield lambda size: bars.advance(task, size)


def _megabytes(progress: ProgressCallback, text: str, total: int) -> Callable[[int], None]:
    """Return a function that is given sizes in bytes, and shows their sum in MB."""
    received = 0

    def advance(size: int) -> None:
        nonlocal received
        received += size
        progress(f"{text}, MB", received >> 20, total >> 20)

    return advance
