"""Colours have one meaning, are never alone, and stay on terminals."""

from __future__ import annotations

import io
import sys
from typing import get_args

import click
import pytest

from deploy.cli.output import print_table, tsv
from deploy.colour import COLOURS, OF_OUTCOMES, Meaning, Verdict, marked
from models.outcomes import Outcome


class Terminal(io.TextIOWrapper):
    """What is written to a terminal with this encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.usefixtures("colours")
class TestMarked:
    @pytest.mark.parametrize("meaning", get_args(Meaning))
    def test_a_terminal_shows_a_mark_a_colour_and_the_words(
        self, monkeypatch: pytest.MonkeyPatch, meaning: Meaning
    ) -> None:
        monkeypatch.setattr(sys, "stdout", Terminal())
        told = marked("so it is", meaning)
        assert told == click.style(click.unstyle(told), fg=COLOURS[meaning])
        mark, words = click.unstyle(told).split(" ", 1)
        assert (len(mark), words) == (1, "so it is")

    def test_the_marks_differ_without_colours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("NO_COLOR", "1")
        told = {marked("", meaning) for meaning in COLOURS}
        assert len(told) == len(COLOURS)
        assert all(one == click.unstyle(one) for one in told)

    def test_a_terminal_without_the_mark_shows_the_words(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdout", Terminal("ascii"))
        monkeypatch.setenv("NO_COLOR", "1")
        assert marked("accepted", "good") == "accepted"

    def test_each_stream_for_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert marked("accepted", "good") == "accepted"
        assert marked("rejected", "bad", err=True) != "rejected"


def test_every_outcome_has_a_colour() -> None:
    assert {one.status for one in get_args(Outcome)} == set(OF_OUTCOMES)


def test_a_cell_has_its_colour_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("I1", Verdict("yes", "good")),
        ("I2", Verdict("NO", "bad")),
        ("I3", Verdict("?", None)),
    ]
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(("invariant", "holds"), rows)
    plain = capsys.readouterr().out
    assert plain == click.unstyle(plain)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    print_table(("invariant", "holds"), rows)
    shown = capsys.readouterr().out
    assert "\x1b[32myes" in shown
    assert "\x1b[31mNO" in shown
    assert tsv(rows[1]) == "I2\tNO"
