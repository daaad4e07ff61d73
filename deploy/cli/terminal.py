"""What commands show on a terminal: examples in `--help`, and a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streams.progress import ProgressCallback, no_progress


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Show a progress bar on standard error during the block, if that is a terminal.

    Yields the callback that updates the bar. The bar disappears at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield no_progress
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("Connecting", total=None)
        yield lambda what, done, total: bars.update(
            task, description=what, completed=done, total=total or None
        )


def examples(*lines: str) -> str:
    """Return an epilog for click that shows these lines as examples, one per line."""
    return "\b\nFor example:\n" + "\n".join(f"  {line}" for line in lines)
