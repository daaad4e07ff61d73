"""The forms of what commands print, and tables that do not break what people copy."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar, get_args

import click
import pytest
from click.testing import CliRunner

from deploy.cli import terminal
from deploy.cli.follow import FollowedHop, _Following
from deploy.cli.main import main
from deploy.cli.output import (
    Form,
    Output,
    json_line,
    print_table,
    printable,
    tsv,
    wants_json,
)
from deploy.cli.queries import _print_page
from deploy.cli.terminal import as_typed
from deploy.embedded.start_progress import TerminalProgress, _megabytes
from deploy.progress import seldom, ticking
from models.queries import Page
from streams.settings import Settings


@dataclass(frozen=True)
class Item:
    json_properties: ClassVar[tuple[str, ...]] = ("is_odd",)

    id: str
    full_name: str
    active: bool
    at: datetime | None = None

    @property
    def is_odd(self) -> bool:
        return "[" in self.id


@dataclass(frozen=True)
class Listing:
    items: list[Item]
    by_id: Mapping[int, Path]


AT = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
ITEMS = [Item("anna", "Anna\tLi", True), Item("[berta]", "Ünal", False, AT)]
LISTING = Listing(ITEMS, {7: Path("/tmp")})
AS_JSON = [
    {"id": "anna", "fullName": "Anna\tLi", "active": True, "at": None, "isOdd": False},
    {
        "id": "[berta]",
        "fullName": "Ünal",
        "active": False,
        "at": "2026-11-29T12:00:00Z",
        "isOdd": True,
    },
]
COLUMNS = ("id", "fullName", "active", "at")
OUTPUT = Output(Listing, line=Item, columns=COLUMNS, in_pipes="tsv")
ID = "user-35bf992dc9e9c616-5b1f-4c59-9f0b"
EMAIL = "a.very.long.address@mail.example.org"


@click.command()
@OUTPUT.option
def listing(form: Form) -> None:
    rows = [(one.id, one.full_name, one.active, one.at) for one in ITEMS]
    OUTPUT.write(form, LISTING, lambda: print_table(COLUMNS, rows), lines=ITEMS)


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(listing, arguments)
    assert done.exit_code == 0, done.output
    return done.output


TSV = "anna\tAnna Li\tyes\t\n[berta]\tÜnal\tno\t2026-11-29T12:00:00Z\n"


def test_the_forms() -> None:
    assert shown() == shown("-o", "tsv") == TSV
    document = {"items": AS_JSON, "byId": {"7": "/tmp"}}
    assert json.loads(shown("--json")) == json.loads(shown("-o", "json")) == document
    assert [json.loads(line) for line in shown("-o", "ndjson").splitlines()] == AS_JSON
    assert shown("-o", "table").splitlines()[0].split() == list(COLUMNS)
    assert "Ünal" in shown("--json")


def test_a_cell_of_tsv_is_what_it_was_but_for_tabs_and_line_ends() -> None:
    """Two ids that differ in a space only are two users."""
    assert tsv(["a  b\u00a0c", " d ", ""]) == "a  b\u00a0c\t d \t"
    ends = "\t\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    assert tsv([f"a{ends}b"]) == f"a{' ' * len(ends)}b"


def test_control_characters_are_escaped() -> None:
    ordinary = "Zoë 5 %\u00a0\\x1b \u0915\u094d\u200d\u0937"
    assert printable(ordinary) == ordinary
    assert printable("a\x1b[2K\n\t\x9b\u202e\udc80b") == r"a\x1b[2K\n\t\x9b\u202e\udc80b"
    assert tsv(["a\x1b[2K", "b\tc"]) == "a\\x1b[2K\tb c"
    assert json_line({"a": "\x1b\x7f\x9b"}) == r'{"a": "\u001b\u007f\u009b"}'


@contextmanager
def nobody_reading() -> Iterator[None]:
    """Standard output is a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    out = os.fdopen(writing, "w")
    with redirect_stdout(out):
        yield
    with suppress(BrokenPipeError):
        out.close()


@pytest.mark.parametrize("form", get_args(Form))
def test_a_result_that_nobody_reads_is_no_error(form: Form) -> None:
    def table() -> None:
        print_table(("id",), [("anna",)])

    with nobody_reading():
        OUTPUT.write(form, LISTING, table, lines=ITEMS)
        click.echo("and what comes after it")


@pytest.mark.parametrize("form", get_args(Form))
def test_nobody_reads_on_so_no_other_part_is_made(form: Form) -> None:
    with nobody_reading(), pytest.raises(BrokenPipeError):
        OUTPUT.write(form, LISTING, lambda: click.echo("anna"), lines=ITEMS, is_part=True)


@pytest.mark.parametrize(
    "print_part",
    [
        lambda: _Following(Settings(), "json").print_hop(
            FollowedHop("produced", AT, 0.0, "of the broker")
        ),
        lambda: _print_page(Page((), None), "json", more=""),
    ],
    ids=["follow", "search"],
)
def test_commands_that_go_on_printing_end_when_nobody_reads(
    print_part: Callable[[], None],
) -> None:
    with nobody_reading(), pytest.raises(BrokenPipeError):
        print_part()


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("get", "--help")], ids=" ".join)
def test_help_that_nobody_reads_is_no_error(
    words: Sequence[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with nobody_reading(), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert capfd.readouterr().err == ""


def test_a_named_form_wins() -> None:
    assert shown("--json", "-o", "tsv") == shown("-o", "tsv", "--json") == TSV


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("get a --json", True),
        ("get a -o json", True),
        ("get a -ojson", True),
        ("get a --output=ndjson", True),
        ("get a --output json", True),
        ("get a -o tsv", False),
        ("get json", False),
    ],
)
def test_whoever_asks_for_json_gets_errors_as_json(words: str, expected: bool) -> None:
    assert wants_json(words.split()) is expected


def table(capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_table(
        ("id", "email", "name", "active", "note"),
        [(ID, EMAIL, "Anna Muster", True, "what has to be said of her " * 3)],
        prose=("note",),
        droppable=("active", "name"),
    )
    return capsys.readouterr().out.splitlines()


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("columns", [40, 80, 110, 200])
def test_ids_and_addresses_are_whole_at_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    on_a_terminal(monkeypatch, columns)
    lines = [click.unstyle(line) for line in table(capsys)]
    assert any(ID in line and EMAIL in line for line in lines)
    assert ("Anna Muster" in "".join(lines)) is (columns == 200)
    assert any("━" in line for line in lines) is (columns >= 110)
    if columns >= 110:
        assert max(map(len, lines)) <= columns


def test_what_may_be_broken_is_broken_before_the_table_is_too_wide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch, 80)
    place = "CQRS_STATE_DIR of command workers"
    print_table(
        ("place", "records", "readable", "personal data is"),
        [(place, 1, 1, "gone by 2026-11-29 14:51 UTC")],
        prose=("personal data is",),
    )
    lines = [click.unstyle(line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert place in "".join(lines)


def test_a_download_takes_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch, 80)
    text = "Downloading the jars of elasticsearch and kafka"
    with TerminalProgress().downloading(text, 90 << 20) as advance:
        advance(90 << 20)
    lines = click.unstyle(capsys.readouterr().err).replace("\r", "\n").split("\n")
    assert any("94.4/94.4 MB" in line for line in lines)
    assert "MB" not in {line.strip() for line in lines}


def test_a_pipe_gets_no_boxes_and_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a file is not a terminal for that
    monkeypatch.setenv("COLUMNS", "80")
    header, row = table(capsys)
    assert header.split() == ["id", "email", "name", "active", "note"]
    assert row.split()[:2] == [ID, EMAIL]
    assert row.count("what has to be said") == 3


def test_a_file_gets_no_bars(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with terminal.progress_bar() as progress:
        progress("Reading", 1, 2)
    with terminal.waiting("Waiting for the outcome"):
        pass
    with TerminalProgress().downloading("Downloading 3 jars", 3 << 20) as advance:
        advance(3 << 20)
    assert capsys.readouterr().err == "Downloading 3 jars\n"


def test_progress_without_a_terminal_is_a_line_every_ten_seconds() -> None:
    said: list[str] = []
    times = iter([0.0, 1.0, 10.0, 19.0, 20.5])
    progress = seldom(said.append, lambda: next(times))
    progress("Reading", 1, 0)
    progress("Reading", 1000, 0)
    progress("Reading", 1500, 3000)
    progress("Reading", 2000, 3000)
    assert said == ["Reading: 1,000", "Reading: 2,000 of 3,000"]


def test_fields_are_named_as_they_are_typed() -> None:
    names = {"aggregate_id": "--id", "last_day": "--to"}
    assert as_typed("first_name: is missing", names) == "--first-name: is missing"
    assert as_typed("aggregate_id: is missing", names) == "--id: is missing"
    assert as_typed("limit must be 1", names) == "--limit must be 1"
    assert as_typed("x is after last_day", names) == "x is after --to"


def test_whoever_waits_at_a_terminal_is_told_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timers: list[threading.Timer] = []

    class Due(threading.Timer):
        """Calls its function when it is joined, as if the time had passed before."""

        def start(self) -> None:
            timers.append(self)

        def join(self, timeout: float | None = None) -> None:
            self.function(*self.args, **self.kwargs)

    monkeypatch.setattr("deploy.cli.terminal.threading.Timer", Due)
    on_a_terminal(monkeypatch, 80)
    with terminal.waiting("Waiting for the outcome"):
        pass
    assert "Waiting for the outcome" in capsys.readouterr().err
    assert [timer.interval for timer in timers] == [2.0]


def test_whoever_waits_elsewhere_gets_lines_until_the_end() -> None:
    said: list[str] = []
    twice = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            twice.set()

    with ticking(say, "Starting Kafka", interval_s=0.01):
        assert twice.wait(30)
    assert said[0] == "Starting Kafka (0 s)"


def test_a_download_elsewhere_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    times = iter([0.0, 5.0, 12.0])
    advance = _megabytes(seldom(said.append, lambda: next(times)), "Downloading 3 jars", 3 << 20)
    advance(1 << 20)
    advance(1 << 20)
    assert said == ["Downloading 3 jars, MB: 2 of 3"]
