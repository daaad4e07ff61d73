"""Colours on terminals: what each means, everywhere. The words beside it say the same.

Nothing is coloured in files and pipes, nor if NO_COLOR is set (https://no-color.org), and files and
pipes get no boxes and bars, whatever FORCE_COLOR says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251

Meaning = Literal["good", "late", "bad"]
"""`late`: it may become good by itself, or somebody has to look; `bad`: it is not as it should."""

COLOURS: Mapping[Meaning, str] = {"good": "green", "late": "yellow", "bad": "red"}
_MARKS: Mapping[Meaning, str] = {"good": "✓", "late": "!", "bad": "✗"}

OF_OUTCOMES: Mapping[str, Meaning] = {
    "accepted": "good",
    "unparked": "good",
    "duplicate": "late",
    "parked": "late",
    "rejected": "bad",
    "dead-lettered": "bad",
}
"""By the status of an outcome."""


class Verdict(NamedTuple):
    """A cell of a table whose text is good or bad news; None: neither."""

    text: str
    meaning: Meaning | None


def marked(text: str, meaning: Meaning, *, err: bool = False) -> str:
    """Return a line as it is, or for a terminal with its mark and colour.

    Args:
        text: the line.
        meaning: what it says.
        err: it is for standard error, not for standard output.
    """
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return text
    mark = _MARKS[meaning].encode(stream.encoding, "ignore").decode(stream.encoding)
    return painted(f"{mark} {text}".lstrip(), COLOURS[meaning])


def new_console(*, err: bool = False) -> Console:
    """Return a console of rich for standard output, or for standard error.

    By itself rich takes a file for a terminal if FORCE_COLOR or TTY_COMPATIBLE is set.
    """
    from rich.console import Console  # noqa: TID251 - here alone

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, force_terminal=stream.isatty(), highlight=False)


def painted(text: str, colour: str) -> str:
    """Return a text for `click.echo`, which takes the colour off where there is no terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)
