"""All commands of `cqrs`, found by walking its tree, and many of them run at once.

A command is run in a process that is forked from one which has imported everything: that takes
milliseconds, where a start of Python and the imports take a second.

    python -m tests.harness.command_tree JOBS

JOBS is a JSON list of `Job`; the `Done` of each is printed, in the same order.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import NoReturn

import click

from deploy.cli.main import COMMANDS, cqrs, main

_ROOT = Path(__file__).parents[2]
_AT_ONCE = 40  # nearly all of them wait


@dataclass(frozen=True)
class Job:
    """One run of the command line."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    timeout: float


@dataclass(frozen=True)
class Done:
    """What came of it; without a code it did not end in time."""

    arguments: Sequence[str]
    code: int | None
    out: str
    err: str


def leaves() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that is no group of others, or works without one of them, by its path."""

    def walk(
        path: tuple[str, ...], command: click.Command
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        if isinstance(command, click.Group):
            context = click.Context(command, info_name="cqrs")
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk((*path, name), child)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield path, command

    yield from walk((), cqrs)


def run_all(jobs: Sequence[Job]) -> list[Done]:
    """Run all of them, several at once, in a process that can fork."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([asdict(job) for job in jobs], file)
        file.flush()
        ended = subprocess.run(
            [sys.executable, "-m", "tests.harness.command_tree", file.name],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
    return [Done(**one) for one in json.loads(ended.stdout)]


def _run_here(jobs: Sequence[Job]) -> list[Done]:
    """Run all of them in forks of this process.

    It has no threads: a fork would have the locks that they hold.
    """
    done: dict[int, Done] = {}
    running: dict[int, tuple[int, int, float]] = {}  # file of a process: number, id, deadline
    left = enumerate(jobs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while len(done) < len(jobs):
            for number, job in islice(left, _AT_ONCE - len(running)):
                process = os.fork()
                if process == 0:
                    _child(job, folder / f"{number}.out", folder / f"{number}.err")
                running[os.pidfd_open(process)] = number, process, time.monotonic() + job.timeout
            ended, _, _ = select.select(running, [], [], 0.5)
            for file, (number, process, deadline) in list(running.items()):
                if file not in ended:
                    if time.monotonic() < deadline:
                        continue
                    os.kill(process, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                out, err = ((folder / f"{number}.{end}").read_text() for end in ("out", "err"))
                code = status if file in ended else None
                done[number] = Done(jobs[number].arguments, code, out, err)
                os.close(file)
                del running[file]
    return [done[number] for number in range(len(jobs))]


def _child(job: Job, out: Path, err: Path) -> NoReturn:
    os.environ.clear()
    os.environ.update(job.environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    code = 0
    try:
        main(job.arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(path: str) -> None:
    for module, _ in COMMANDS.values():
        with suppress(ImportError):
            import_module(module.split(":")[0])
    for name in ("agents.client", "agents.user_audit", "rich.console", "rich.table"):
        import_module(name)
    jobs = [Job(**one) for one in json.loads(Path(path).read_text())]
    print(json.dumps([asdict(one) for one in _run_here(jobs)]))


if __name__ == "__main__":
    _main(sys.argv[1])
