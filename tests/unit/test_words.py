"""Plain words on pages, in help and in messages, so that nobody stumbles over them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.command_line import ROOT

# Records of what was so when they were written, and of what ran.
_RECORDS = {"CHANGELOG.md", "fault-report.md", "performance.md", "performance-slow-host.md"}
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if page.name not in _RECORDS and page.parent.name != "profiles"
]
ROOMS = ("models", "streams", "agents", "deploy")

_INSTEAD = {
    r"\banew\b": "again, from the beginning",
    r"\b(?:go|goes|going|went|gone) on\b": "continue",
    r"\bbehind a page\b": "after a page",
    r"(?<!here )\b(?:is|are|was|were) no (?!longer|more than)": "is not a",
    r"\bin good order\b": "cleanly",
    # A sentence whose subject is a clause: "What fails says so."
    r"(?:^|[.:] )(?:What|Who|Whoever|Whatever) [^?.:|]+\.(?:\s|$)": "a noun, then the verb",
}
_FENCED = re.compile(r"^```\w+ ?(?:title=.*)?\n.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#.*$", re.MULTILINE)


def objections(text: str) -> list[str]:
    """What is to be said in other words, each with a proposal."""
    return [
        f"{' '.join(found[0].split())!r}: {instead}"
        for pattern, instead in _INSTEAD.items()
        for found in re.finditer(pattern, text)
    ]


def paragraphs(page: str) -> Iterator[str]:
    """The paragraphs and the lines of tables of a page; code and headings are left out."""
    for part in re.split(r"\n\s*\n|\n(?=\|)", _HEADING.sub("", page)):
        yield " ".join(re.sub(r"`[^`]*`", "it", part).split())


def messages(code: str) -> Iterator[str]:
    """The texts in a module, without docstrings; those of click commands are their help."""
    tree = ast.parse(code)
    comments = {
        id(one.value)
        for one in ast.walk(tree)
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
    }
    for one in ast.walk(tree):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in comments:
            yield " ".join(one.value.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_and_help_are_in_plain_words(page: Path) -> None:
    text = page.read_text()
    if page.name != "cli.md":  # there the help of commands is in such blocks
        text = _FENCED.sub("", text)
    assert [one for part in paragraphs(text) for one in objections(part)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_messages_are_in_plain_words(room: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {one}"
        for path in (ROOT / room).rglob("*.py")
        for text in messages(path.read_text())
        for one in objections(text)
    }
    assert found == set()


@pytest.mark.parametrize(
    "text",
    [
        "It is made anew.",
        "A worker goes on.",
        "This is no token.",
        "Stop it in good order.",
        "It ends. What fails says so in one line.",
    ],
)
def test_what_is_objected_to(text: str) -> None:
    assert len(objections(text)) == 1


@pytest.mark.parametrize(
    "text",
    ["There is no index.", "It is no longer there.", "What is wrong? Ask.", "What is left: a key."],
)
def test_what_is_not(text: str) -> None:
    assert objections(text) == []
