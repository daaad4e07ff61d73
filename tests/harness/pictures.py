"""Pictures of commands on terminals of 80 and 200 columns: `python -m tests.harness.pictures`.

They are made of what the commands print on a terminal, against servers and workers that are started
for it and have decided some thousand commands. They are in `docs/pictures/`.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from deploy.embedded.ports import free_ports
from deploy.supervisor import ROLES, running
from deploy.waiting import wait_until
from tests.harness.command_line import ROOT, cqrs_command

FOLDER = ROOT / "docs" / "pictures"

_COLUMNS = (80, 200)
_LINES = 50
_COMMANDS = 300_000  # enough to be busy while two pictures of it are taken
_BUSY = re.compile(r"^commands +[1-9]", re.MULTILINE)
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # it would be loaded from another host


def on_terminal(arguments: list[str], columns: int, environment: Mapping[str, str]) -> str:
    """Return what `cqrs` writes to a terminal of so many columns, with its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, columns, 0, 0))
    process = subprocess.Popen(
        cqrs_command(*arguments),
        cwd=ROOT,
        env={**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the other end is closed when the command has ended
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    process.wait()
    return written.decode().replace("\r\n", "\n").rstrip("\n")


def picture(command: str, output: str, columns: int) -> str:
    """Return an SVG of a terminal with this command and its output."""
    console = Console(
        record=True,
        width=columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text(f"$ {command}", style="bold"))
    for line in Text.from_ansi(output).split("\n", allow_blank=True):
        for part in line.divide(range(columns, len(line), columns)):  # as a terminal breaks it
            console.print(part, soft_wrap=True)
    return _FONT.sub("", console.export_svg(title=f"{columns} columns", unique_id="terminal"))


def main() -> None:
    """Start everything, and make all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cqrs-") as name, ExitStack() as workers:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if key[:5] != "CQRS_"} | {
            "CQRS_STACK_HOME": str(folder / "stack"),
            "CQRS_PARTITIONS": "2",
        }

        def run(*arguments: str) -> str:
            return subprocess.run(
                cqrs_command(*arguments),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            ).stdout

        def works(command: str) -> bool:
            done = subprocess.run(
                cqrs_command(command), cwd=ROOT, env=environment, capture_output=True, check=False
            )
            return done.returncode == 0

        run("up")
        workers.callback(run, "down", "--purge")
        run("topics", "create")
        ports = free_ports(len(ROLES))
        for role, port in zip(ROLES, ports, strict=True):
            own = {**environment, "CQRS_HEALTH_PORT": str(port)}
            log = folder / f"{role}.log"
            workers.enter_context(running(cqrs_command("worker", role), own, log, cwd=ROOT))
        asyncio.run(wait_until(lambda: works("active") and works("registrations"), timeout=300))
        anna = ["--id", "anna", "--email", "Anna.Muster@example.org"]
        register = ["send", "register", *anna, "--first-name", "Anna", "--last-name", "Muster"]
        run(*register, "--wait")
        sample = folder / "commands.ndjson"
        sample.write_text(run("generate", str(_COMMANDS)))
        sending = workers.enter_context(
            running(
                cqrs_command("send", "--from", str(sample)), environment, folder / "sent", cwd=ROOT
            )
        )
        addresses = [f"127.0.0.1:{port}" for port in ports]
        for file, line in {
            "top": f"top {' '.join(addresses)} --once",
            "search": "search email a.muster@EX",
            "active": "active --limit 5",
            "history": "history anna",
            "status": "status",
            "doctor": "doctor",
            "verify": "verify",
        }.items():
            if file != "top":
                sending.wait()
            for columns in _COLUMNS:
                output = on_terminal(shlex.split(line), columns, environment)
                while file == "top" and not _BUSY.search(click.unstyle(output)):
                    assert sending.poll() is None, "it was sent before anything was decided"
                    output = on_terminal(shlex.split(line), columns, environment)
                path = FOLDER / f"{file}-{columns}.svg"
                path.write_text(picture(f"cqrs {line}", output, columns))
                print(path.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()
