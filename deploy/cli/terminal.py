"""What commands show on a terminal, and read from it: examples, progress, times."""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import click
import msgspec

from deploy.colour import new_console
from deploy.progress import seldom, ticking
from streams.progress import ProgressCallback

_SILENCE_S = 2.0  # until a terminal shows that something is waited for
_FIELD = re.compile(r"^[a-z_]+(?=:| must )")  # how messages about a field begin


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Show on standard error how far it is, during the block.

    Yields the callback that says so. On a terminal it updates a bar, which disappears at the end;
    elsewhere it writes a line every ten seconds.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = new_console(err=True)
    if not console.is_terminal:
        yield seldom(_say)
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


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say on standard error what is waited for, if the block takes longer than two seconds.

    On a terminal it is a spinner, which disappears at the end; elsewhere a line every ten seconds.
    """
    console = new_console(err=True)
    if not console.is_terminal:
        with ticking(_say, text):
            yield
        return
    spinner = console.status(text)
    timer = threading.Timer(_SILENCE_S, spinner.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        spinner.stop()


def confirm(question: str) -> None:
    """Ask a question on standard error. Raises click.Abort unless the answer is yes.

    Whatever is said then begins a line of its own, also if nobody pressed Enter at a terminal.
    """
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if error.__context__ is not None or not sys.stdin.isatty():  # Ctrl-C, or a pipe
            click.echo(err=True)
        raise


def _say(line: str) -> None:
    click.echo(line, err=True)


def as_typed(line: str, names: Mapping[str, str]) -> str:
    """Name the fields of a message as they are typed: `--first-name`, not `first_name`.

    `names` are the fields that are typed in another way; the others only count where the message
    begins with them.
    """
    for name, typed in names.items():
        line = re.sub(rf"(?<!-)\b{name}\b", typed, line, count=1)
    return _FIELD.sub(lambda field: f"--{field[0].replace('_', '-')}", line)


class NumberRange(click.FloatRange):
    """A range of numbers. click's accepts nan, which is neither too small nor too large."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or raise the usage error that names it."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def read_time(_ctx: click.Context, _option: click.Parameter, value: Any) -> datetime | None:
    """Read the time of an option, as its callback; it is UTC if it has no zone."""
    if value is None:
        return None
    try:
        at = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise click.BadParameter("write it like 2026-11-29T12:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def examples(*lines: str) -> str:
    """Return an epilog for click that shows these lines as examples, one per line."""
    return "\b\nFor example:\n" + "\n".join(f"  {line}" for line in lines)
