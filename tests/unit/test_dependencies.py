"""What the packages import: `models` next to nothing, and nobody what is not declared."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.harness.packaging import locked

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "deploy" / "embedded"
OURS = frozenset({"models", "streams", "agents", "deploy", "benchmarks", "tests"})
PURE = frozenset({"models", "pydantic", "msgspec", "typing_extensions"})


def imports_of(package: str) -> Iterator[tuple[str, str]]:
    """Each import of a module in this package, also those inside functions: where, and of what.

    The embedded servers are a package of their own: they have dependencies of their own.
    """
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.is_relative_to(EMBEDDED) and package == "deploy":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, "imports are absolute"
                names = [node.module or ""]
            else:
                continue
            for name in names:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", name.partition(".")[0]


def declared(*lists: str) -> set[str]:
    """The distributions in these lists of pyproject.toml, in normal form."""
    text = (ROOT / "pyproject.toml").read_text()
    found: set[str] = set()
    for name in lists:
        match = re.search(rf"^{name} = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        assert match is not None, f"pyproject.toml has no list {name}"
        found.update(map(normal, re.findall(r'^    "([\w.-]+)', match[1], re.MULTILINE)))
    return found


@cache
def installed() -> Mapping[str, list[str]]:
    """The distributions that bring a package, by the package's name."""
    return packages_distributions()


@pytest.mark.parametrize("lock", ["worker.lock", "build.lock"])
def test_the_locks_of_the_image_have_the_versions_that_are_tested(lock: str) -> None:
    tested = locked(ROOT / "requirements.lock")
    for name_and_version, hashes in locked(ROOT / "deploy" / lock).items():
        assert hashes == tested[name_and_version], name_and_version


def test_the_lock_of_a_worker_has_its_dependencies_and_no_other_s() -> None:
    names = {normal(name) for name, _ in locked(ROOT / "deploy" / "worker.lock")}
    assert declared("dependencies") <= names
    assert not names & (declared("embedded", "bench", "dev") - declared("dependencies"))


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_models_imports_little_beyond_the_standard_library() -> None:
    allowed = PURE | sys.stdlib_module_names
    refused = [
        f"{where} imports {name}: models may import {', '.join(sorted(PURE))} and nothing else"
        for where, name in imports_of("models")
        if name not in allowed
    ]
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize(
    ("package", "lists"),
    [
        ("models", ["dependencies"]),
        ("streams", ["dependencies", "tracing"]),
        ("agents", ["dependencies"]),
        ("deploy", ["dependencies"]),
        ("deploy/embedded", ["dependencies", "embedded"]),
        ("benchmarks", ["dependencies", "embedded", "bench", "dev"]),
        ("tests", ["dependencies", "embedded", "bench", "dev", "tracing"]),
    ],
)
def test_what_is_imported_is_declared(package: str, lists: list[str]) -> None:
    known, expected = OURS | sys.stdlib_module_names, declared(*lists)
    if package == "tests":  # what they install by themselves
        expected |= {normal(name) for name, _ in locked(ROOT / "tests" / "shipping" / "tools.lock")}
    undeclared = [
        f"{where} imports {name}: pyproject.toml has to declare {' or '.join(providers)}"
        for where, name in imports_of(package)
        if name not in known
        # A package that is not installed (it is for other Pythons) is declared by its own name.
        and not expected.intersection(map(normal, providers := installed().get(name, [name])))
    ]
    assert not undeclared, "\n".join(undeclared)
