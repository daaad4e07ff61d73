"""What integration and fault tests stand on: deployments of their own, worker processes, waiting.

A deployment is a namespace on the shared servers: topics, groups and indices that no other test
sees. Worker processes are real ones, always stopped, and their logs are shown when a test fails.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
from typing_extensions import Self

from agents.users import USERS
from deploy.connect import environment
from deploy.embedded.processes import ServerProcess
from deploy.workers import ROLES, Role, command_line, die_with
from models.errors import Fatal
from streams.aggregate import Names
from streams.kafka import admin_client
from streams.settings import Settings
from streams.topics import create_topics, topic_specs

T = TypeVar("T")

ROOT = Path(__file__).parent.parent


class Servers(Protocol):
    """What is needed of a stack."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def elasticsearch_url(self) -> str: ...


async def wait_until(condition: Callable[[], Any], *, timeout: float = 30, what: str = "") -> Any:
    """Wait until `condition`, which may be async, gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or inspect.getsource(condition)}")
        await asyncio.sleep(0.05)


def new_settings(servers: Servers, **changes: Any) -> Settings:
    """Settings in a namespace of their own, quick to notice a dead worker."""
    return Settings(
        **{
            "bootstrap_servers": servers.bootstrap_servers,
            "elasticsearch_url": servers.elasticsearch_url,
            "namespace": f"t{uuid4().hex[:10]}-",
            "partitions": 2,
            "session_timeout": 6.0,
            "transaction_timeout": 6.0,
            **changes,
        }
    )


async def create_user_topics(settings: Settings) -> None:
    """All topics of users in the settings' namespace."""
    await create_topics(settings, topic_specs(settings, Names(settings.namespace, USERS.name)))


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run this to its end, whether or not an event loop runs here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def cqrs(
    settings: Settings, *arguments: str, given: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, with `given` on its standard input."""
    done = subprocess.run(
        cqrs_command(*arguments),
        cwd=ROOT,
        env=environment(settings),
        input=given,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def cqrs_command(*arguments: str) -> list[str]:
    """What runs the command line."""
    return [sys.executable, "-m", "deploy.cli", *arguments]


class WorkerProcess:
    """One `faust worker` process of a role. As a context manager it is started and stopped.

    Start it from the main thread: it dies with the thread that started it, so that even a killed
    test run leaves nothing behind.
    """

    def __init__(
        self, role: Role, settings: Settings, folder: Path, *, app: str | None = None
    ) -> None:
        """A worker of this role, by the app in another module if one is given."""
        self.role = role
        self._app = app or ROLES[role]
        self.settings = settings
        self.log = folder / f"{settings.namespace}{role}-{uuid4().hex[:6]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None, "start first"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended; a suspended one has not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_text(self) -> str:
        """All that it has logged, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start the process, or start it again after it ended. Does not wait."""
        assert not self.is_running, "it runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command_line(self._app),
                cwd=ROOT,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),
            )

    def kill(self) -> None:
        """Kill -9, as a crash would; also when suspended."""
        self._end(signal.SIGKILL, 10)

    def terminate(self, timeout: float = 30) -> int:
        """Stop it in good order; the exit code. It fails if that takes longer."""
        return self._end(signal.SIGTERM, timeout)

    def suspend(self) -> None:
        """Stop its time: SIGSTOP."""
        assert self._process is not None, "start first"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its time go on: SIGCONT."""
        assert self._process is not None, "start first"
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout: float = 30) -> int:
        """Wait for it to end by itself; the exit code."""
        assert self._process is not None, "start first"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the {self.role} worker did not end in {timeout} s") from None

    def close(self) -> None:
        """Make sure that it has ended."""
        if self.is_running and self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _end(self, number: signal.Signals, timeout: float) -> int:
        assert self._process is not None, "start first"
        self._process.send_signal(number)
        return self.wait(timeout)


@dataclass
class Deployment:
    """A namespace with its topics, and the workers that were started in it."""

    settings: Settings
    names: Names
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    open: ClassVar[list[Deployment]] = []
    """Those of the tests that run now, for the report of a failure."""

    def start(self, role: Role, *, app: str | None = None) -> WorkerProcess:
        """One more worker; it is stopped with the deployment at the latest."""
        worker = WorkerProcess(role, self.settings, self.folder, app=app)
        self.workers.append(worker)
        worker.start()
        return worker


@contextmanager
def deployment(servers: Servers, *roles: Role, **changes: Any) -> Iterator[Deployment]:
    """A namespace of its own with all topics of users and a worker of each role."""
    settings = new_settings(servers, **changes)
    run_apart(create_user_topics(settings))
    with tempfile.TemporaryDirectory(prefix="cqrs-test-") as folder:
        deployed = Deployment(settings, Names(settings.namespace, USERS.name), Path(folder))
        Deployment.open.append(deployed)
        try:
            for role in roles:
                deployed.start(role)
            yield deployed
        finally:
            Deployment.open.remove(deployed)
            for worker in deployed.workers:
                worker.close()


@asynccontextmanager
async def suspended(server: ServerProcess, settings: Settings) -> AsyncIterator[None]:
    """The time of a server stands still within the block: it takes everything, answers nothing.

    Kafka answers again after it.
    """

    async def kafka_answers() -> bool:
        try:
            async with admin_client(settings) as admin:
                return bool(await admin.list_topics())
        except Fatal:
            return False

    process = server.process
    assert process is not None, "it does not run"
    process.suspend()
    try:
        yield
    finally:
        process.resume()
        await wait_until(kafka_answers)


def is_suspended(worker: WorkerProcess) -> bool:
    """Whether a worker's time stands still."""
    return bool(psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)


def worker_logs(lines: int = 60) -> Iterator[tuple[str, str]]:
    """A title and the last lines of the log of every worker of the tests that run now."""
    for deployed in Deployment.open:
        for worker in deployed.workers:
            title = f"{worker.role} worker {worker.pid} in {deployed.settings.namespace}"
            yield title, "\n".join(worker.log_text.splitlines()[-lines:])
