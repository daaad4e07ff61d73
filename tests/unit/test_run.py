"""`./run` finds its checkout, however it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
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


@pytest.mark.parametrize("word", ["search", "--version"])
def test_a_command_of_cqrs_is_told_apart(checkout: Path, word: str) -> None:
    done = subprocess.run([checkout / "run", word], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"`./run cqrs {word}`" in done.stderr


@pytest.fixture
def pythons(checkout: Path, tmp_path: Path) -> Path:
    """A folder that is the whole PATH, without a Python yet; the checkout has to be set up."""
    (checkout / ".venv" / "packages.stamp").unlink()
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "head", "readlink", "sort", "tail"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def add_python(folder: Path, name: str, probed: str) -> Path:
    """Add a Python that does this when it is probed, and fails to make an environment."""
    python = folder / name
    python.write_text(f'#!{folder}/bash\n[ "$1" = -c ] || exit 1\n{probed}\n')
    python.chmod(0o755)
    return python


def set_up(checkout: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "bash", checkout / "run", *(words or ["cqrs"])],
        capture_output=True,
        text=True,
        env={"PATH": str(folder)},
    )


@pytest.mark.parametrize(("built", "is_warned"), [("optimised", False), ("plain", True)])
def test_the_fastest_python_is_taken(
    checkout: Path, pythons: Path, built: str, is_warned: bool
) -> None:
    """And a build that costs more CPU is named."""
    add_python(pythons, "python3", "echo 20.10 optimised slow")
    add_python(pythons, "python3.13", f"echo 9.90 {built} $0")
    add_python(pythons, "python3.11", "echo Traceback >&2; exit 1")
    done = set_up(checkout, pythons)
    assert done.returncode == 1
    assert f"with {pythons / 'python3.13'} (once" in done.stderr
    assert ("without optimisation" in done.stderr) is is_warned


def test_an_environment_is_built_like_the_python_that_it_was_made_with(tmp_path: Path) -> None:
    """An active environment is the first in the PATH."""
    probe = RUN.read_text().partition("PROBE='")[2].partition("'\n")[0]
    venv.create(tmp_path / "environment", symlinks=True)
    name = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
    found = [
        subprocess.run([prefix / name, "-c", probe], capture_output=True, text=True, check=True)
        for prefix in (Path(sys.base_prefix), tmp_path / "environment")
    ]
    built = [one.stdout.split()[1] for one in found]
    assert built[0] == built[1]


def test_the_tests_run_on_a_python_that_was_asked_for(checkout: Path, pythons: Path) -> None:
    """In an environment of its own, whichever is faster."""
    add_python(pythons, "python3.11", "echo 9.90 optimised $0")
    python = add_python(pythons, "python3.13", "echo 20.10 optimised $0")
    done = set_up(checkout, pythons, "test", "--python", "3.13", "tests/unit")
    assert f"Setting up .venv-3.13 with {python} (once" in done.stderr
    assert done.stderr.endswith(f"in {checkout}/.venv-3.13\n")


@pytest.mark.parametrize("word", ["", "13", "3.9", "-v"])
def test_a_python_that_cannot_be_asked_for(checkout: Path, pythons: Path, word: str) -> None:
    add_python(pythons, "python3.11", "echo 9.90 optimised $0")
    done = set_up(checkout, pythons, "test", "--python", *filter(None, [word]))
    assert (done.returncode, done.stderr) == (
        2,
        "run: --python takes a version from 3.10 on, such as 3.13\n",
    )


def test_a_python_that_was_asked_for_is_not_there(checkout: Path, pythons: Path) -> None:
    add_python(pythons, "python3", "echo 9.90 optimised $0")
    done = set_up(checkout, pythons, "test", "--python", "3.13")
    assert (done.returncode, done.stderr) == (
        1,
        "run: Python 3.10 or newer is needed, but there is no python3.13\n",
    )


@pytest.mark.parametrize(
    ("ended", "code", "shown"),
    [
        (1, 0, ("tests/unit\n", "run: the servers start more slowly\n")),
        (130, 130, ("", "")),
    ],
)
def test_who_interrupts_what_makes_starts_faster_gets_no_tests(
    checkout: Path, ended: int, code: int, shown: tuple[str, str]
) -> None:
    scripts = checkout / ".venv" / "bin"
    made = dict.fromkeys(("ruff", "mypy", "lint-imports"), "")
    made["python"] = f'[ "$2" != deploy.embedded.aot_caches ] || exit {ended}'
    made["pytest"] = 'echo "$@"'
    for name, line in made.items():
        (scripts / name).write_text(f"#!/bin/sh\n{line}\n")
        (scripts / name).chmod(0o755)
    done = subprocess.run(
        [checkout / "run", "test", "tests/unit"], capture_output=True, text=True, cwd=checkout
    )
    assert (done.returncode, (done.stdout, done.stderr)) == (code, shown)


def test_an_environment_that_is_made_again_has_a_reason(checkout: Path, pythons: Path) -> None:
    add_python(pythons, "python3", "echo 9.90 optimised $0")
    (checkout / ".venv" / "packages.stamp").write_text(f"{checkout} of another lock\n")
    assert "again, since requirements.lock has changed" in set_up(checkout, pythons).stderr
    (checkout / ".venv" / "packages.stamp").write_text("/elsewhere of another lock\n")
    assert "again, since it was made for another folder" in set_up(checkout, pythons).stderr


def test_no_python_can_be_used(checkout: Path, pythons: Path) -> None:
    python = add_python(pythons, "python3", "echo 'lacks the venv module' >&2; exit 1")
    done = set_up(checkout, pythons)
    assert (done.returncode, done.stderr) == (
        1,
        f"run: Python 3.10 or newer is needed, but {python} lacks the venv module\n",
    )


def test_two_at_once_make_one_environment(checkout: Path, pythons: Path) -> None:
    """The second one waits for the first, and no server that it starts holds it up."""
    for name in ("flock", "mkdir", "cp", "sleep"):
        (pythons / name).symlink_to(shutil.which(name) or name)
    made, may_end = checkout / "made", checkout / "may end"
    python = add_python(pythons, "python3", "")
    python.write_text(
        f"""#!{pythons}/bash
case "$*" in
-c*) echo "9.90 optimised $0" ;;
"-m venv"*)
    echo made >>"{made}"
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    until [ -e "{may_end}" ]; do sleep 0.05; done
    ;;
esac
"""
    )
    shutil.rmtree(checkout / ".venv" / "bin")
    run = [str(pythons / "bash"), str(checkout / "run"), "check"]
    lints = [checkout / ".venv" / "bin" / name for name in ("ruff", "mypy", "lint-imports")]

    def start() -> tuple[subprocess.Popen[str], str]:
        """Start one; return it and its first line."""
        process = subprocess.Popen(
            run, stderr=subprocess.PIPE, text=True, env={"PATH": str(pythons)}
        )
        assert process.stderr is not None
        return process, process.stderr.readline()

    try:
        (first, setting_up), (second, waiting) = start(), start()
    finally:
        for lint in lints:
            lint.write_text(f"#!{pythons}/bash\n[ ! -e /proc/$$/fd/9 ]\n")
            lint.chmod(0o755)
        may_end.touch()
    ended = [(one.communicate(timeout=60)[1], one.returncode) for one in (first, second)]
    assert "Setting up .venv" in setting_up
    assert waiting == "run: waiting for another ./run to set up .venv\n"
    assert ended == [("", 0), ("", 0)]
    assert made.read_text() == "made\n"


def test_setting_up_says_how_far_it_is(tmp_path: Path) -> None:
    """What pip says is counted; installing is a step of its own, and may take a minute."""
    functions = RUN.read_text().partition("show_progress() {")[2].partition("\n}\n")[0]
    said = ("Collecting a==1", "  Downloading a-1.whl", "Collecting b==2", "Installing collected a")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"show_progress() {{{functions}\n}}\nshow_progress"],
        input="\n".join([*said, ""]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "run: 2 packages downloaded, installing them\n"
    assert done.stdout == ""
