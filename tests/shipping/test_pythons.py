"""The wheel and its locked dependencies from a registry, on each Python that this machine has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import supervisor
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import new_settings
from tests.harness.packaging import WORKER_LOCK, build

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(900)]

MINORS = range(10, 15)  # of Python 3


def pythons() -> Iterator[str]:
    """The path of a Python of each version that there is."""
    for minor in MINORS:
        candidates = [shutil.which(f"python3.{minor}") or ""]
        candidates += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for candidate in filter(None, candidates):
            done = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if done.stdout.startswith(f"Python 3.{minor}."):
                yield candidate
                break


@pytest.mark.parametrize("python", list(pythons()))
def test_a_worker_decides_a_command(python: str, stack: EmbeddedStack, tmp_path: Path) -> None:
    programs = tmp_path / "environment" / "bin"
    subprocess.run([python, "-m", "venv", programs.parent], check=True)
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
    hashed = ["--require-hashes", "--only-binary", ":all:", "-r", str(WORKER_LOCK)]
    subprocess.run([*install, *hashed], check=True)
    wheel = build("wheel", tmp_path)
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    subprocess.run([programs / "python", "-m", "pip", "check"], check=True)

    variables = dict(child_environment(new_settings(stack)))
    variables.pop("PYTHONPATH", None)

    def cqrs(*words: str) -> str:
        command = [str(programs / "cqrs"), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (done.stderr, log.exists() and log.read_text())
        return done.stdout

    log = tmp_path / "worker.log"
    assert cqrs("--version").endswith("not installed (cqrs-streams[embedded])\n")
    cqrs("topics", "create")
    work = [str(programs / "cqrs"), "worker", "commands"]
    register = ["send", "register", "--id", "anna", "--email", "anna@example.org"]
    with supervisor.running(work, variables, log, cwd=tmp_path):
        said = cqrs(*register, "--first-name", "Anna", "--last-name", "Li")
    assert said == "accepted: user anna is at version 1\n"
