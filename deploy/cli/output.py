"""What commands print: one mechanism for people and for programs.

`-o table` is for people: boxes on a terminal, plain columns in a pipe. `-o json` is one value, `-o
ndjson` an object per line, `-o tsv` the columns of the table without a header. `--json` is short
for `-o json`.

What programs read has a type, which each command declares (`Output`); `docs/reference/outputs.md`
is made from these.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from deploy.cli.standard_streams import discard_output
from deploy.colour import COLOURS, Verdict, new_console

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251

Form = Literal["table", "json", "ndjson", "tsv"]
FORMS: tuple[Form, ...] = ("table", "json", "ndjson", "tsv")

_C = TypeVar("_C", bound=Callable[..., Any])
_BORDERS = 4  # columns of a terminal that the left and right edge of a table take
_PADDING = 3  # between two columns
_SPACES = dict.fromkeys(map(ord, "\t\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")  # of TSV
_PROSE_COLUMNS = 20  # that a column of prose should have
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]").sub
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # that JSON leaves as they are


class Output:
    """What a command prints for programs: types, and the columns of TSV.

    Fields of these types are named in camelCase in JSON, and their docstrings are the reference. A
    dataclass may name properties that belong to its JSON as well, in `json_properties`.
    """

    def __init__(
        self,
        document: Any,
        *,
        line: Any = None,
        columns: Sequence[str] = (),
        forms: Sequence[Form] = FORMS,
        in_pipes: Form | None = None,
    ) -> None:
        """Declare what a command prints.

        Args:
            document: type of what `-o json` prints.
            line: type of a line of `-o ndjson`; without it, that of an item of a list, or else
                `document`.
            columns: of `-o tsv`.
            forms: those that the command has; the first one is the default.
            in_pipes: the default if the output goes to a file or another program.
        """
        self.document = document
        self.line = line
        self.columns = tuple(columns)
        self.forms = tuple(forms)
        self.in_pipes = in_pipes

    def option(self, function: _C) -> _C:
        """Add `-o` and `--json` to a command, which gets the `Form` as its argument `form`."""
        default = self.forms[0]

        def chosen(_context: click.Context, _option: click.Parameter, value: Form | None) -> Form:
            in_pipes = self.in_pipes or default
            return value or (default if sys.stdout.isatty() else in_pipes)

        function = click.option(
            "-o",
            "--output",
            "form",
            cls=OutputOption,
            output=self,
            type=click.Choice(self.forms),
            callback=chosen,
            help=f"Form of the output.  [default: {default}; in pipes {self.in_pipes or default}]",
        )(function)
        return click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_json_for_short,
            help="Short for -o json.",
        )(function)

    def write(
        self,
        form: Form,
        document: object,
        table: Callable[[], None],
        *,
        lines: Iterable[object] | None = None,
        rows: Iterable[Sequence[object]] | None = None,
        is_part: bool = False,
    ) -> None:
        """Write a result in a form.

        That nobody reads it is no error, so that the command ends with its own exit code.

        Args:
            form: which one.
            document: all of it, for JSON.
            table: prints it for people.
            lines: the objects of NDJSON; without them, the items of a list, or else `document`.
            rows: the cells of TSV; without them, the columns of each line.
            is_part: whether the command has more results, and ends when nobody reads them.

        Raises:
            BrokenPipeError: nobody reads a part. `main` takes it for the end of the command.
        """
        try:
            if form == "table":
                table()
            elif form == "json":
                click.echo(json_line(document))
            elif form == "tsv" and rows is not None:
                for row in rows:
                    click.echo(tsv(row))
            else:
                if lines is None:
                    lines = document if isinstance(document, (list, tuple)) else [document]
                for line in lines:
                    click.echo(json_line(line) if form == "ndjson" else self.tsv_line(line))
        except BrokenPipeError:
            if is_part:
                raise
            discard_output()

    def tsv_line(self, line: object) -> str:
        """Return the columns of an object as a line of TSV; what it does not have is empty."""
        item = plain(line)
        return tsv([item.get(one) for one in self.columns])


class OutputOption(click.Option):
    """`-o` of a command, with what the command declares of its output."""

    def __init__(self, *names: Any, output: Output, **options: Any) -> None:
        super().__init__(*names, **options)
        self.output = output


def _json_for_short(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        context.default_map = {**(context.default_map or {}), "form": "json"}


def wants_json(words: Sequence[str]) -> bool:
    """Whether these words of a command line ask for JSON, so that errors are JSON as well."""
    text = "\0".join(words).replace("--output", "-o").replace("-o\0", "-o").replace("-o=", "-o")
    return not {"--json", "-ojson", "-ondjson"}.isdisjoint(text.split("\0"))


def json_line(value: object) -> str:
    """Return a value as a line of JSON. Control characters are escaped, as in `printable`."""
    return json.dumps(plain(value), ensure_ascii=False).translate(_CONTROLS)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: fields in camelCase, times in RFC 3339, events as sent."""
    from msgspec import to_builtins
    from pydantic import BaseModel
    from pydantic.alias_generators import to_camel

    from models.messages import EventRecord

    if isinstance(value, EventRecord):
        return plain(value.to_wire())
    if is_dataclass(value):
        names = [one.name for one in fields(value)] + [*getattr(value, "json_properties", ())]
        return {to_camel(name): plain(getattr(value, name)) for name in names}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return to_builtins(value, enc_hook=str)


def tsv(cells: Sequence[object]) -> str:
    """Return a line of TSV: each tab and line end within a cell becomes a space."""
    return "\t".join(printable(_text_of(one).translate(_SPACES)) for one in cells)


def cell(value: object) -> str:
    """Return a value as it is shown everywhere."""
    return printable(_text_of(value))


def printable(text: str) -> str:
    """Return a text with its control characters escaped.

    Whoever may write a command could otherwise send escape sequences to the terminal of an
    operator who looks at it: to hide lines, or to write to the clipboard. Marks that turn the
    direction of text around are escaped as well; letters of any language stay as they are.
    """
    return _UNSAFE(lambda found: found[0].encode("unicode_escape").decode(), text)


def _text_of(value: object) -> str:
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
    from rich.table import Table
    from rich.text import Text

    cells = [[cell(one) for one in row] for row in rows]
    width_of = {
        header: max([len(header), *(len(row[number]) for row in cells)])
        for number, header in enumerate(headers)
    }
    console = new_console()
    shown = list(headers)
    has_box = False
    if console.is_terminal:
        leaving = iter(droppable)
        while (
            _needed([_PROSE_COLUMNS if one in prose else width_of[one] for one in shown])
            > console.width
        ) and (left_out := next(leaving, None)):
            shown.remove(left_out)
        for number, header in enumerate(headers):
            if header in prose:  # no word is broken, but the table may get narrower than planned
                words = " ".join([header, *(row[number] for row in cells)]).split()
                width_of[header] = min(_PROSE_COLUMNS, max(map(len, words)))
        needed = _needed([width_of[one] for one in shown])
        has_box = needed <= console.width  # the terminal would break a wider one
        console.width = max(console.width, needed)
    else:
        console.width = _needed([width_of[one] for one in shown])
    table = Table(box=HEAVY_HEAD if has_box else None, pad_edge=has_box)
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
    echo_rendered(console, table)


def echo_rendered(console: Console, *renderables: object) -> None:
    """Print what rich makes for this console. Its own printing ends the program in broken pipes."""
    with console.capture() as captured:
        console.print(*renderables)
    click.echo(captured.get(), nl=False, color=console.is_terminal)


def _style(value: object) -> str:
    if isinstance(value, Verdict) and value.meaning is not None:
        return COLOURS[value.meaning]
    return ""


def _needed(widths: Sequence[int]) -> int:
    return sum(widths) + _PADDING * (len(widths) - 1) + _BORDERS
