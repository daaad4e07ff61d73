"""The wheel of this checkout, installed in an environment of its own and used outside of it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest

from deploy import supervisor
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import new_settings
from streams.settings import Settings
from tests.harness.command_line import ROOT, add_foreign_packages

PACKAGES = {"models", "streams", "agents", "deploy"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, capture_output=True, timeout=60, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel in it.

    The wheel's dependencies are found in the running environment, which a `.pth` file names. Python
    reads no further `.pth` files there: an editable install of this checkout is not found.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], timeout=60, check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    install = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, capture_output=True, timeout=60, check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    running = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "dependencies.pth").write_text("\n".join(running))
    return folder / "bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    empty = tmp_path / "current"
    empty.mkdir()
    return empty


@pytest.fixture
def settings(stack: EmbeddedStack) -> Settings:
    return new_settings(stack)


def environment(settings: Settings | None = None) -> Mapping[str, str]:
    """Return the variables of a program that must not find the checkout."""
    variables = dict(os.environ) if settings is None else child_environment(settings)
    variables.pop("PYTHONPATH", None)
    return variables


def run(
    folder: Path, *command: str | Path, settings: Settings | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in this folder to its end."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_packages_and_nothing_else_are_in_the_wheel(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        files = [Path(name) for name in archive.namelist()]
    (metadata,) = {file.parts[0] for file in files} - PACKAGES
    assert metadata.endswith(".dist-info")
    assert {file.suffix for file in files if file.parts[0] in PACKAGES} == {
        *(".py", ".lock", ".properties"),
        *(".json", ".yaml"),  # deploy/monitoring
        ".java",  # the one class that the secured Elasticsearch needs; no benchmark's
    }


def test_the_checkout_is_not_found(programs: Path, folder: Path) -> None:
    script = "import agents, sys; print(agents.__file__, *sys.path, sep='\\n')"
    done = run(folder, programs / "python", "-c", script)
    assert done.returncode == 0, done.stderr
    imported, *searched = (folder / line for line in done.stdout.splitlines())
    assert imported.is_relative_to(programs.parent)
    assert not [path for path in searched if (path / "benchmarks" / "cli.py").exists()]


def test_what_is_not_installed_is_no_command(programs: Path, folder: Path) -> None:
    done = run(folder, programs / "cqrs", "--help")
    assert done.returncode == 0, done.stderr
    commands = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert {"topics", "worker", "send", "demo"} <= commands
    assert not {"bench", "faults"} & commands
    for name in ("bench", "faults"):
        done = run(folder, programs / "cqrs", name)
        assert done.returncode == 2
        assert f"No such command '{name}'" in done.stderr


@pytest.mark.parametrize("has_foreign_packages", [False, True])
def test_a_worker_decides_a_command(
    programs: Path, folder: Path, settings: Settings, tmp_path: Path, has_foreign_packages: bool
) -> None:
    if has_foreign_packages:
        add_foreign_packages(folder)
    cqrs = programs / "cqrs"
    done = run(folder, cqrs, "topics", "create", settings=settings)
    assert done.returncode == 0, done.stderr
    log = tmp_path / "worker.log"
    work = [str(cqrs), "worker", "commands"]
    register = (
        *("send", "register", "--id", "anna", "--email", "anna@example.org"),
        *("--first-name", "Anna", "--last-name", "Li"),
    )
    with supervisor.running(work, environment(settings), log, cwd=folder):
        done = run(folder, cqrs, *register, settings=settings)
    assert done.stdout == "accepted: user anna is at version 1\n", (done.stderr, log.read_text())
