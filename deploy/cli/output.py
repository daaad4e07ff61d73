"""What commands print: one mechanism for people and for programs.

`-o table` is for people: boxes on a terminal, plain columns in a pipe. `-o json` is one value, `-o
ndjson` an object per line, `-o tsv` the columns of the table without a header. `--json` is short
for `-o json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import click

from deploy.colour import COLOURS, Verdict

Form = Literal["table", "json", "ndjson", "tsv"]
FORMS: tuple[Form, ...] = ("table", "json", "ndjson", "tsv")

_C = TypeVar("_C", bound=Callable[..., Any])
_BORDERS = 4  # columns of a terminal that the left and right edge of a table take
_PADDING = 3  # between two columns


def output_option(
    *, in_pipes: Form | None = None, forms: Sequence[Form] = FORMS
) -> Callable[[_C], _C]:
    """Add `-o` and `--json` to a command, which gets the `Form` as its argument `form`.

    Args:
        forms: those that the command has; the first one is the default.
        in_pipes: the default if the output goes to a file or another program.
    """
    default = forms[0]

    def chosen(_context: click.Context, _option: click.Parameter, value: Form | None) -> Form:
        return value or (default if in_pipes is None or sys.stdout.isatty() else in_pipes)

    def add(function: _C) -> _C:
        function = click.option(
            "-o",
            "--output",
            "form",
            type=click.Choice(forms),
            callback=chosen,
            help=f"Form of the output.  [default: {default}; in pipes {in_pipes or default}]",
        )(function)
        return click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_json_for_short,
            help="Short for -o json.",
        )(function)

    return add


def _json_for_short(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        context.default_map = {**(context.default_map or {}), "form": "json"}


def wants_json(words: Sequence[str]) -> bool:
    """Whether these words of a command line ask for JSON, so that errors are JSON as well."""
    text = "\0".join(words).replace("--output", "-o").replace("-o\0", "-o").replace("-o=", "-o")
    return not {"--json", "-ojson", "-ondjson"}.isdisjoint(text.split("\0"))


def write(
    form: Form,
    document: object,
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    table: Callable[[], None],
) -> None:
    """Write a result in a form.

    Args:
        form: which one.
        document: all of it, for JSON.
        items: the objects that it consists of, one a line for NDJSON and TSV.
        columns: their fields in TSV, in this order.
        table: prints it for people.
    """
    if form == "table":
        table()
    elif form == "json":
        click.echo(_json(document))
    else:
        for item in items:
            click.echo(_json(item) if form == "ndjson" else tsv([item[one] for one in columns]))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def tsv(cells: Sequence[object]) -> str:
    """Return a line of TSV: tabs and line ends within a cell become spaces."""
    return "\t".join(" ".join(cell(one).split()) if one != "" else "" for one in cells)


def cell(value: object) -> str:
    """Return a value as it is shown everywhere."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Verdict):
        return value.text
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Collection[str] = (),
    prose: Collection[str] = (),
    droppable: Sequence[str] = (),
) -> None:
    """Print a table for people; what they copy is never broken, whatever the width.

    Args:
        headers: of the columns.
        rows: their cells; a `Verdict` has a colour on terminals.
        right: columns that are aligned to the right.
        prose: columns that may be broken into lines.
        droppable: columns to leave out where the terminal is too narrow, in this order.
    """
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[cell(one) for one in row] for row in rows]
    width_of = {
        header: max([len(header), *(len(row[number]) for row in cells)])
        for number, header in enumerate(headers)
    }
    console = Console(highlight=False)
    shown = list(headers)
    if console.is_terminal:
        leaving = iter(droppable)
        while (
            needed := _needed([20 if one in prose else width_of[one] for one in shown])
        ) > console.width and (left_out := next(leaving, None)):
            shown.remove(left_out)
        console.width = max(console.width, needed)
    else:
        console.width = _needed([width_of[one] for one in shown])
    table = Table(box=HEAVY_HEAD if console.is_terminal else None, pad_edge=console.is_terminal)
    for header in shown:
        is_prose = header in prose and console.is_terminal
        table.add_column(
            header, justify="right" if header in right else "left", no_wrap=not is_prose
        )
    for row, texts in zip(rows, cells, strict=True):
        # as Text: in a str rich takes [brackets] for markup
        of = {
            header: Text(text, style=_style(value))
            for header, text, value in zip(headers, texts, row, strict=True)
        }
        table.add_row(*(of[header] for header in shown))
    console.print(table)


def _style(value: object) -> str:
    if isinstance(value, Verdict) and value.meaning is not None:
        return COLOURS[value.meaning]
    return ""


def _needed(widths: Sequence[int]) -> int:
    return sum(widths) + _PADDING * (len(widths) - 1) + _BORDERS
