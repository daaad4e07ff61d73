"""Wheel and sdist, with locked dependencies from a registry, on each Python of this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker

from deploy import supervisor
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import new_settings
from tests.harness.packaging import BUILD_LOCK, WORKER_LOCK, build
from tests.shipping.pythons import MINORS, pythons

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(900)]

MISSING = [minor for minor in MINORS if minor not in pythons()] or MINORS[-1:]
HASHED = ("--require-hashes", "--only-binary", ":all:", "-r")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    for target in ("wheel", "sdist"):
        build(target, folder)
    return folder


@pytest.mark.parametrize("minor", pythons(), ids="3.{}".format)
def test_a_worker_decides_a_command(
    minor: int, dist: Path, stack: EmbeddedStack, tmp_path: Path
) -> None:
    """Of the sdist first, then of the wheel: the same program in the same environment."""
    programs = tmp_path / "environment" / "bin"
    subprocess.run([pythons()[minor], "-m", "venv", programs.parent], check=True)
    pip = [str(programs / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for lock in (WORKER_LOCK, BUILD_LOCK):
        subprocess.run([*pip, "install", *HASHED, str(lock)], check=True)
    install = [*pip, "install", "--no-deps", "--no-index", "--no-build-isolation"]

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
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    for package, user in ((sdist, "anna"), (wheel, "ben")):
        subprocess.run([*install, "--force-reinstall", str(package)], check=True)
        subprocess.run([*pip, "check"], check=True)
        version = cqrs("--version")
        assert f"Python 3.{minor}." in version
        assert version.endswith("not installed (cqrs-streams[embedded])\n")
        cqrs("topics", "create")
        work = [str(programs / "cqrs"), "worker", "commands"]
        register = ["send", "register", "--id", user, "--email", f"{user}@example.org"]
        with supervisor.running(work, variables, log, cwd=tmp_path):
            said = cqrs(*register, "--first-name", "Anna", "--last-name", "Li")
        assert said == f"accepted: user {user} is at version 1\n"


@pytest.mark.parametrize("minor", MISSING, ids="3.{}".format)
def test_what_is_locked_has_wheels(minor: int, tmp_path: Path) -> None:
    """For a Python that this machine lacks: nothing would be compiled there."""
    lock = tmp_path / "worker.lock"
    lock.write_text("".join(of_python(minor)))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"),
            *("--ignore-installed", "--target", str(tmp_path), "--implementation", "cp"),
            *("--python-version", f"3.{minor}", *HASHED, str(lock)),
        ],
        check=True,
    )


def of_python(minor: int) -> Iterator[str]:
    """What is locked for this Python; pip itself asks for which one it runs on."""
    version = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
    for entry in re.findall(r"^\S.*\n(?: .*\n)+", WORKER_LOCK.read_text(), re.MULTILINE):
        requirement, end_of_line, hashes = entry.partition(" \\\n")
        name, _, marker = requirement.partition(" ; ")
        if not marker or Marker(marker).evaluate(version):
            yield f"{name}{end_of_line}{hashes}"
