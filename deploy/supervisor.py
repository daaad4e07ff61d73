"""Worker processes: the app of each role, how one is started, and how it is kept running."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import async_timeout

from agents.views import VIEWS
from deploy.roles import SecuredRole

Role = str
"""What a worker does: `commands`, or the role of a view."""

ROLES: Mapping[Role, str] = {
    "commands": "agents.user_commands",
    **{view.role: view.worker for view in VIEWS.values()},
}
"""The module with the app of each role."""

SECURED_ROLES: Mapping[Role, SecuredRole] = {
    role: "command-worker" if role == "commands" else "view-worker" for role in ROLES
}
"""Whose rights the workers of each role need."""

SUPERVISOR = "cqrs worker"
"""Whose lines are not those of one of its processes: in JSON, the field `worker`."""

_RUN_APP = Path(__file__).with_name("run_app.py")

_PR_SET_PDEATHSIG = 1  # prctl(2)

# Until a stopping worker is killed. It exits by itself after 9 s (`STOP_DEADLINE_S`), unless it is
# suspended.
_STOP_TIMEOUT_S = 12

# Between the end of a worker and its next start. After a run that was longer than the last of these
# the first one comes again.
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

# Longest line that a worker may write: a traceback in JSON is one.
_LINE_BYTES = 1024 * 1024


def command_line(app: str) -> list[str]:
    """Return the command that starts one worker of the app in this module.

    It works in any folder: the worker imports nothing from its current one.
    """
    faust = ["-L", "uvloop", "worker", "--without-web"]
    return [sys.executable, str(_RUN_APP), app, *faust]


def die_with(parent: int) -> None:
    """Make the kernel kill this new child when `parent` ends, even by kill -9 (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)


def module_command(name: str) -> list[str]:
    """Return the command that runs a module as a program, with `python -m`."""
    return [sys.executable, "-m", name]


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process during the block: SIGTERM at its end, SIGKILL if that takes too long.

    It also ends when this process ends. `log` gets its output, `options` are for `Popen`.
    """
    with log.open("wb") as output:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
            **options,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_worker(role: Role, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run one worker of this role during the block."""
    with running(command_line(ROLES[role]), environment, log):
        yield


@dataclass(frozen=True)
class Child:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class Supervisor:
    """Keeps a number of worker processes running.

    A worker that ends with another code than 0 is started again, with backoff. SIGINT and SIGTERM
    stop all of them in good order; those that still run after a second signal, or after 12 s, are
    killed.
    """

    def __init__(
        self,
        children: Sequence[Child],
        say: Callable[[str], None],
        on_line: Callable[[Child, str], None] | None = None,
    ) -> None:
        """Prepare these workers.

        Args:
            children: the workers.
            say: gets one line for each restart.
            on_line: gets each line that a worker writes; without it, workers write to the standard
                streams of this process.
        """
        self._children = children
        self._say = say
        self._on_line = on_line
        self._stopping = asyncio.Event()
        self._killing = False
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> int:
        """Run until all have ended; return the exit code: 0, or 1 if a worker had to be killed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        await asyncio.gather(*map(self._keep, self._children))
        return int(self._killing)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._kill()
            return
        self._stopping.set()
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(_STOP_TIMEOUT_S, self._kill)

    def _kill(self) -> None:
        for process in self._running.values():
            self._killing = True
            process.kill()

    async def _keep(self, child: Child) -> None:
        waits = iter(_BACKOFF_S)
        while not self._stopping.is_set():
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *child.command,
                env=child.environment,
                stdin=subprocess.DEVNULL,
                stdout=None if self._on_line is None else subprocess.PIPE,
                stderr=None if self._on_line is None else subprocess.STDOUT,
                limit=_LINE_BYTES,
                # Ctrl-C signals a whole process group; they get one signal, from here.
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),
            )
            self._running[child.name] = process
            if self._stopping.is_set():  # while it was being started
                process.send_signal(signal.SIGTERM)
            await self._read_lines(child, process)
            code = await process.wait()
            del self._running[child.name]
            if code == 0 or self._stopping.is_set():
                return
            if time.monotonic() - started > _BACKOFF_S[-1]:
                waits = iter(_BACKOFF_S)
            wait = next(waits, _BACKOFF_S[-1])
            self._say(f"{child.name} {_how_it_ended(code)}; starting it again in {wait:g} s")
            with suppress(asyncio.TimeoutError):
                async with async_timeout.timeout(wait):
                    await self._stopping.wait()

    async def _read_lines(self, child: Child, process: asyncio.subprocess.Process) -> None:
        """Hand on what the process writes, until it closes its output."""
        if process.stdout is None or self._on_line is None:
            return
        async for line in process.stdout:
            self._on_line(child, line.decode(errors="replace").rstrip("\n"))


def _how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
