"""What a start tells the person who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


class Progress:
    """Says nothing."""

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Something takes a while: as long as the block."""
        yield

    @contextmanager
    def downloading(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A download of `total` bytes; the yielded function takes the bytes that came in."""
        yield lambda _size: None


class TerminalProgress(Progress):
    """On standard error: bars on a terminal, one plain line per step elsewhere."""

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner and the seconds so far."""
        from rich.progress import SpinnerColumn, TimeElapsedColumn

        with self._shown(text, None, SpinnerColumn(), TimeElapsedColumn()):
            yield

    @contextmanager
    def downloading(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar in megabytes, with the time that is left."""
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn

        columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with self._shown(text, total, *columns) as advance:
            yield advance

    @contextmanager
    def _shown(
        self, text: str, total: int | None, *columns: ProgressColumn
    ) -> Iterator[Callable[[int], None]]:
        from rich.console import Console
        from rich.progress import Progress as Bars
        from rich.progress import TextColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            console.print(text, soft_wrap=True, highlight=False)
            yield lambda _size: None
            return
        description = TextColumn("{task.description}")
        with Bars(description, *columns, console=console, transient=True) as bars:
            task = bars.add_task(text, total=total)
            yield lambda size: bars.advance(task, size)
