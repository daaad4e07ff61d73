"""All commands of `cqrs`, found by walking its tree, and many of them run at once.

A command is run in a process that is forked from one which has imported everything: that takes
milliseconds, where a start of Python and the imports take a second.

    python -m tests.harness.command_tree JOBS

JOBS is a JSON list of `Job`; the `Done` of each is printed, in the same order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import click

from deploy.cli.main import COMMANDS, cqrs, main
from tests.harness.command_line import ROOT

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
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
    return [Done(**one) for one in json.loads(ended.stdout)]


def _run(job: Job) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = get_context("fork").Process(target=_child, args=(job, out, err), daemon=True)
        child.start()
        child.join(job.timeout)
        if child.is_alive():
            child.kill()
            child.join()
            code = None
        else:
            code = child.exitcode
        return Done(job.arguments, code, out.read_text(), err.read_text())


def _child(job: Job, out: Path, err: Path) -> None:
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
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        done = list(threads.map(_run, jobs))
    print(json.dumps([asdict(one) for one in done]))


if __name__ == "__main__":
    _main(sys.argv[1])
