"""Pages that a test follows as a reader does, block by block.

    ```sh                    commands to run
    ```diff                  a change, for `git apply`
    ```python title="PATH"   a new file
    ```text                  an output: its lines are in what was printed since the last output

In an output `...` stands for any text, so a line that begins or ends with it may be a part of one.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness.command_line import ROOT

_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "=== end of block"

# What a reader types, and what runs here: this Python, and the `cqrs` of the folder it runs in.
_PYTHON = shlex.quote(sys.executable)
_PROLOGUE = f'cqrs() {{ {_PYTHON} -m deploy.cli "$@"; }}\n'
_TYPED = {
    "./run cqrs": "cqrs",
    ".venv/bin/python": _PYTHON,
    ".venv/bin/faust": f"{_PYTHON} -m faust",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its title if it has one, and its text."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text())]


def copy_checkout(folder: Path) -> Path:
    """Copy the files of this checkout that git knows into a folder, and return it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


def apply_changes(changes: Sequence[Block], folder: Path) -> None:
    """Change and write the files of a checkout as these blocks say.

    Raises:
        AssertionError: a change does not fit the code.
    """
    for block in changes:
        if block.language == "diff":
            done = subprocess.run(
                ["git", "apply", "-"],
                cwd=folder,
                input=block.text,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{done.stderr}\n{block.text}"
        elif block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


def run_commands(
    followed: Sequence[Block], folder: Path, environment: Mapping[str, str], timeout: float
) -> None:
    """Run the commands of these blocks in one shell, and compare with the outputs.

    Raises:
        AssertionError: a command failed, printed something else, or took too long: all together get
            `timeout` seconds.
    """
    runs = [block for block in followed if block.language in ("sh", "text")]
    script = "\n".join(
        _typed(block.text) if block.language == "sh" else f"echo '{_END}'" for block in runs
    )
    try:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail"],
            input=_PROLOGUE + script,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"not done after {timeout:g} s: {late.output!r}") from None
    assert done.returncode == 0, done.stdout
    printed = done.stdout.split(f"{_END}\n")
    outputs = [block.text for block in runs if block.language == "text"]
    for expected, output in zip(outputs, printed, strict=False):
        lines = iter(output.splitlines())
        for line in expected.splitlines():
            pattern = ".*".join(map(re.escape, line.split("...")))
            assert any(re.fullmatch(pattern, one) for one in lines), f"{line}\nis not in\n{output}"


def _typed(commands: str) -> str:
    for typed, here in _TYPED.items():
        commands = commands.replace(typed, here)
    return commands
