"""The reference says what the code does."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from models.errors import PoisonCode
from tests.harness.command_tree import leaves
from tests.harness.outputs import outputs
from tests.harness.reference import DOCS, pages, renewed

ROOMS = ("models", "streams", "agents")
PAGES = {"cli.md", "messages.md", "outputs.md", "settings.md", "topics.md"}
MESSAGES = (DOCS / "reference" / "messages.md").read_text()


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_what_is_made_from_the_code_is_up_to_date(path: Path) -> None:
    page = path.read_text()
    assert page == renewed(page), "run `python -m tests.harness.reference`"


def test_what_pages_have_of_the_code_is_found() -> None:
    assert {path.name for path in pages()} == PAGES


def test_every_command_that_prints_for_programs_says_what() -> None:
    has_forms = {
        " ".join(path)
        for path, command in leaves()
        if any("-o" in one.opts for one in command.params)
    }
    assert has_forms == outputs().keys()


def test_every_code_of_a_rejection_is_there() -> None:
    root = DOCS.parent
    code = "\n".join(path.read_text() for room in ROOMS for path in (root / room).rglob("*.py"))
    codes = {
        call.args[0].value
        for call in ast.walk(ast.parse(code.replace("from __future__ import annotations", "")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Rejected"
        and isinstance(call.args[0], ast.Constant)
    }
    assert codes == codes_in("## Why a command is rejected")


def test_every_code_of_a_dead_letter_is_there() -> None:
    assert set(get_args(PoisonCode)) == codes_in("## Why a record is a dead letter")


def codes_in(heading: str) -> set[str]:
    """The first column of the table below a heading."""
    section = MESSAGES.partition(heading)[2].partition("\n## ")[0]
    return {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
