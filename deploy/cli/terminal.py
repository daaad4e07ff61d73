"""What commands show on a terminal: examples in `--help`, and a progress bar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from streams.progress import ProgressCallback, no_progress

_FIELD = re.compile(r"^[a-z_]+(?=:| must )")  # how messages about a field begin


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


def as_typed(line: str, names: Mapping[str, str]) -> str:
    """Name the fields of a message as they are typed: `--first-name`, not `first_name`.

    `names` are the fields that are typed in another way; the others only count where the message
    begins with them.
    """
    for name, typed in names.items():
        line = re.sub(rf"(?<!-)\b{name}\b", typed, line, count=1)
    return _FIELD.sub(lambda field: f"--{field[0].replace('_', '-')}", line)


def examples(*lines: str) -> str:
    """Return an epilog for click that shows these lines as examples, one per line."""
    return "\b\nFor example:\n" + "\n".join(f"  {line}" for line in lines)
