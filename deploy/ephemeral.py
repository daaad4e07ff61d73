"""Deployments to break: a namespace on shared servers, with worker processes of its own.

A deployment's topics, groups and indices are seen by no other one. Its workers are real processes
that end with it, and their logs are kept until then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
from typing_extensions import Self

from agents.users import USERS
from deploy.environment import child_environment
from deploy.supervisor import ROLES, Role, command_line, die_with
from deploy.waiting import NotInTime
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.kafka.topics import create_topics, topic_specs
from streams.settings import Settings


class Servers(Protocol):
    """What is needed of a stack."""

    @property
    def bootstrap_servers(self) -> str:
        """What a Kafka client is given."""

    @property
    def elasticsearch_url(self) -> str:
        """What an Elasticsearch client is given."""


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
    await create_topics(settings, topic_specs(settings, TopicNames.of(settings, USERS.name)))


class WorkerProcess:
    """One `faust worker` process of a role. As a context manager it is started and stopped.

    Start it from the main thread: it dies with the thread that started it, so that even a killed
    run leaves nothing behind.
    """

    def __init__(
        self, role: Role, settings: Settings, folder: Path, *, app: str | None = None
    ) -> None:
        """A worker of this role, by the app in another module if one is given."""
        self.role = role
        self.settings = settings
        self.log = folder / f"{settings.namespace}{role}-{uuid4().hex[:6]}.log"
        self._app = app or ROLES[role]
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
    def exit_code(self) -> int | None:
        """How the process ended, as `subprocess` has it; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def is_suspended(self) -> bool:
        """Whether its time stands still."""
        return self.is_running and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    @property
    def log_text(self) -> str:
        """All that it has logged, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def has_begun(self) -> bool:
        """Whether it has begun to work on a partition, in any of its starts."""
        return "going on at position" in self.log_text

    def start(self, **extra: str) -> None:
        """Start the process, or start it again after it ended. Does not wait.

        `extra` are variables of its environment beside the settings.
        """
        assert not self.is_running, "it runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command_line(self._app),
                env={**child_environment(self.settings), **extra},
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
            raise NotInTime(f"the {self.role} worker did not end in {timeout:g} s") from None

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
    names: TopicNames
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    open: ClassVar[list[Deployment]] = []
    """Those that there are now, for the report of a failure."""

    def start(self, role: Role, *, app: str | None = None, **extra: str) -> WorkerProcess:
        """One more worker; it is stopped with the deployment at the latest."""
        worker = WorkerProcess(role, self.settings, self.folder, app=app)
        self.workers.append(worker)
        worker.start(**extra)
        return worker

    async def retire(self, worker: WorkerProcess) -> None:
        """Stop one in good order; it has to end with code 0. Others go on meanwhile."""
        self.workers.remove(worker)
        code = await asyncio.to_thread(worker.terminate)
        if code:
            raise Fatal(f"a {worker.role} worker ended with code {code} when it was stopped")

    def of(self, role: Role) -> list[WorkerProcess]:
        """The workers of one role."""
        return [worker for worker in self.workers if worker.role == role]


@contextmanager
def open_deployment(
    settings: Settings, roles: Sequence[Role], apps: Mapping[Role, str] = MappingProxyType({})
) -> Iterator[Deployment]:
    """Workers of these roles, on topics that exist; `apps` names other modules for their apps."""
    with tempfile.TemporaryDirectory(prefix="cqrs-faults-") as folder:
        deployed = Deployment(settings, TopicNames.of(settings, USERS.name), Path(folder))
        Deployment.open.append(deployed)
        try:
            for role in roles:
                deployed.start(role, app=apps.get(role))
            yield deployed
        finally:
            Deployment.open.remove(deployed)
            for worker in deployed.workers:
                worker.close()


def worker_logs(lines: int = 60) -> Iterator[tuple[str, str]]:
    """A title and the last lines of the log of every worker of the deployments that are open."""
    for deployed in Deployment.open:
        for worker in deployed.workers:
            title = f"{worker.role} worker {worker.pid} in {deployed.settings.namespace}"
            yield title, "\n".join(worker.log_text.splitlines()[-lines:])
