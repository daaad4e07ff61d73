"""`./run` finds its checkout, however it is called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "run"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is complete, with a `cqrs` that prints its arguments."""
    root = tmp_path / "a checkout"
    scripts = root / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (root / "run").write_bytes(RUN.read_bytes())
    (scripts / "python").write_text("#!/bin/sh\n")
    (scripts / "cqrs").write_text('#!/bin/sh\necho "$@"\n')
    for script in (root / "run", *scripts.iterdir()):
        script.chmod(0o755)
    for name, stamp, prefix in (
        ("requirements.lock", "packages.stamp", f"{root} "),
        ("pyproject.toml", "project.stamp", ""),
    ):
        (root / name).write_text("")
        empty = subprocess.run("cksum", input="", capture_output=True, text=True, check=True)
        (root / ".venv" / stamp).write_text(prefix + empty.stdout)
    return root


@pytest.mark.parametrize("target", ["{root}/run", "../a checkout/run"])
def test_by_a_symlink(checkout: Path, tmp_path: Path, target: str) -> None:
    link = tmp_path / "bin" / "x"
    link.parent.mkdir()
    link.symlink_to(target.format(root=checkout))
    done = subprocess.run([link, "cqrs", "--version"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("--version\n", "")


def test_with_a_cdpath(checkout: Path) -> None:
    done = subprocess.run(
        [f"{checkout.name}/run", "cqrs", "--version"],
        capture_output=True,
        text=True,
        cwd=checkout.parent,
        env={**os.environ, "CDPATH": "."},
    )
    assert (done.stdout, done.stderr) == ("--version\n", "")
