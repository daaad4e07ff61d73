"""What the pages name exists: paths, modules, identifiers, imports, and what links point to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest

from deploy.cli.main import cqrs
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
ROOMS = ("models", "streams", "agents", "deploy", "benchmarks", "tests")
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md")
    for page in ROOT.glob(pattern)
    if "node_modules" not in page.parts
)
# The others also tell of earlier code, and of other projects'.
ABOUT_THE_CODE = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/decisions/*.md")),
    *(ROOT / "docs" / f"{name}.md" for name in ("architecture", "concepts", "textbook", "views")),
]

# The language, the title if there is one, and the code. Those with a title are files that a reader
# writes: `tests/harness/followed_pages.py` does so.
_BLOCK = re.compile(r"^```(\w*)(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(r"[\w.*-]*(?:/[\w.*-]+)*/?")
_FILE = re.compile(r"\.(?:py|md|toml|json|lock|yaml|png)$")
_NAME = re.compile(rf"(?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+")
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\./run )?cqrs (.+)")
# No word of English, but `DeadLetters`, `read_event` or `Snapshot.reply_to`.
_IDENTIFIER = re.compile(r"(?=\w*(?:_|[a-z][A-Z]|\.))[A-Za-z]\w+(?:\.[a-z]\w+)*(?:\(\))?")


def id_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def spans(page: Path) -> Iterator[str]:
    """The words of what stands in backticks."""
    for span in _SPAN.findall(_BLOCK.sub("", page.read_text())):
        yield from span.split()


def commands_of(page: Path) -> Iterator[str]:
    """What follows `cqrs` in indented lines, up to a comment, a pipe or an end of the command."""
    text = _BLOCK.sub("", page.read_text()).replace("\\\n", " ")
    for line in re.findall(r"^    (.+)$", text, re.MULTILINE):
        for part in re.split(r"[|;<>&#)]| -- ", line):
            match = _COMMAND.match(part.strip())
            if match is not None:
                yield match[1]


def is_path(word: str) -> bool:
    is_ours = _PATH.fullmatch(word) is not None and not word.startswith(("/", ".venv/"))
    return is_ours and ("/" in word or _FILE.search(word) is not None)


def is_there(word: str, page: Path) -> bool:
    """Whether this is a path from the root or from the page.

    A test or a page may be named without its folder.
    """
    if word.startswith("test_") or word.endswith(".md"):
        return any(one.endswith(f"/{word}") for one in files())
    folders = (ROOT, page.parent)
    return any(next(folder.glob(word.rstrip("/")), None) is not None for folder in folders)


@cache
def files() -> frozenset[str]:
    code = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return frozenset(map(str, (*code, *PAGES)))


@cache
def words_of_the_code() -> frozenset[str]:
    """Every word in the Python files, and the variables of the settings."""
    code = (Path(path).read_text() for path in files() if path.endswith(".py") and path != __file__)
    variables = {f"CQRS_{name.upper()}" for name in Settings.model_fields}
    return frozenset(variables.union(*(re.findall(r"\w+", text) for text in code)))


def resolve(name: str) -> object:
    """The module or the attribute of this dotted name. Raises ImportError or AttributeError."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.is_dir() or path.with_suffix(".py").exists():
            found: object = import_module(".".join(parts[:length]))
            for attribute in parts[length:]:
                found = getattr(found, attribute)
            return found
    raise ImportError(name)


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_paths_exist(page: Path) -> None:
    assert [word for word in spans(page) if is_path(word) and not is_there(word, page)] == []


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_names_of_modules_and_their_attributes_exist(page: Path) -> None:
    for word in spans(page):
        name = _NAME.match(word)
        if name is not None and not is_path(word):
            resolve(name[0])


@pytest.mark.parametrize("page", ABOUT_THE_CODE, ids=id_of)
def test_identifiers_occur_in_the_code(page: Path) -> None:
    names = [word for word in spans(page) if _IDENTIFIER.fullmatch(word) and not is_path(word)]
    parts = {part for name in names for part in name.removesuffix("()").split(".")}
    assert parts - words_of_the_code() == set()


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in commands_of(page):
        command: click.Command = cqrs
        for word in line.split():
            if isinstance(command, click.Group) and not word.startswith("-"):
                found = command.get_command(click.Context(command), word)
                assert found is not None, line
                command = found
            elif word.startswith("--") and word != "--help":
                options = {name for one in command.params for name in one.opts}
                assert word.partition("=")[0] in options, line


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_python_is_valid_and_imports_what_is_there(page: Path) -> None:
    for language, title, code in _BLOCK.findall(page.read_text()):
        if language != "python" or title:
            continue
        tree = compile(code, page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ROOMS:
                for alias in node.names:
                    resolve(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_links_point_to_what_is_there(page: Path) -> None:
    for link in _LINK.findall(_BLOCK.sub("", page.read_text())):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in {
                anchor_of(heading) for heading in _HEADING.findall(target.read_text())
            }


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("CHANGELOG.md", r"^## \[(\d.*?)\]"),
        ("deploy/kubernetes/kustomization.yaml", r"^ +newTag: (.+)$"),
        ("docs/deploy.md", r"cqrs_streams-(.+?)-py3"),
    ],
)
def test_the_version_of_the_project_is_named(path: str, pattern: str) -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    named = re.search(pattern, (ROOT / path).read_text(), re.MULTILINE)
    assert project is not None
    assert named is not None
    assert named[1] == project[1]
