"""Deployments that last for a block: a namespace on shared servers, with its own workers.

Tests and the fault suite use them. The namespace keeps their topics, groups and indices apart. The
workers are real processes that end with the deployment; their logs are kept until then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from deploy.roles import SecuredRole
from deploy.supervisor import ROLES, SECURED_ROLES, Role, command_line, die_with
from deploy.waiting import NotInTime
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.kafka.topics import create_topics, topic_specs
from streams.settings import Settings


class Servers(Protocol):
    """A Kafka and an Elasticsearch, such as an `EmbeddedStack`."""

    @property
    def bootstrap_servers(self) -> str:
        """Addresses for Kafka clients: host:port, separated by commas."""

    @property
    def elasticsearch_url(self) -> str:
        """URL for Elasticsearch clients."""


def new_settings(servers: Servers, **changes: Any) -> Settings:
    """Return settings for a new namespace; `changes` are other settings by name.

    It has two partitions, and short timeouts (6 s) so that a dead worker is noticed soon. Workers
    also log the start of each partition.
    """
    return Settings(
        **{
            "bootstrap_servers": servers.bootstrap_servers,
            "elasticsearch_url": servers.elasticsearch_url,
            "namespace": f"t{uuid4().hex[:10]}-",
            "partitions": 2,
            "session_timeout": 6.0,
            "transaction_timeout": 6.0,
            "log_level": "DEBUG",
            **changes,
        }
    )


async def create_user_topics(settings: Settings) -> None:
    """Create all topics of users in the settings' namespace."""
    await create_topics(settings, topic_specs(settings, TopicNames.of(settings, USERS.name)))


# What a worker logs when it starts a partition; the second is a part of what older ones log.
_BEGINS = ("continuing at position", "on at position")

Launcher = Callable[[str], Sequence[str]]
"""Returns the command that starts one worker of the app in this module."""


class WorkerProcess:
    """One `faust worker` process of a role.

    As a context manager it starts with the block and is killed at its end. Start it from the main
    thread: the kernel kills it when the thread that started it ends (Linux), so even a killed test
    run leaves no process behind.
    """

    def __init__(
        self,
        role: Role,
        settings: Settings,
        folder: Path,
        *,
        app: str | None = None,
        launcher: Launcher = command_line,
    ) -> None:
        """Prepare a worker; `start` starts it.

        Args:
            role: what it does.
            settings: passed on in its environment.
            folder: where its log is written.
            app: module of another app than the role's own.
            launcher: starts it, if not as usual; the process must be that of the command itself.
        """
        self.role = role
        self.settings = settings
        self.log = folder / f"{settings.namespace}{role}-{uuid4().hex[:6]}.log"
        self._command = launcher(app or ROLES[role])
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Id of the process that was started last."""
        assert self._process is not None, "start first"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended; also true if it is suspended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def is_suspended(self) -> bool:
        """Whether the process is stopped by a signal (SIGSTOP)."""
        return self.is_running and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    @property
    def log_text(self) -> str:
        """Everything it has logged, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def has_begun(self) -> bool:
        """Whether it has started to process a partition, in any of its starts."""
        return any(words in self.log_text for words in _BEGINS)

    def start(self, **extra: str) -> None:
        """Start the process, also again after it ended, without waiting for it to work.

        `extra` are environment variables in addition to the settings.
        """
        assert not self.is_running, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**child_environment(self.settings), **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),
            )

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would; also works if it is suspended."""
        self._end(signal.SIGKILL, 10)

    def terminate(self, timeout: float = 30) -> int:
        """Stop it with SIGTERM and return its exit code.

        Raises:
            NotInTime: it did not end within `timeout` seconds.
        """
        return self._end(signal.SIGTERM, timeout)

    def suspend(self) -> None:
        """Suspend the process with SIGSTOP."""
        assert self._process is not None, "start first"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a suspended process with SIGCONT."""
        assert self._process is not None, "start first"
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout: float = 30) -> int:
        """Wait until it ends by itself and return its exit code.

        Raises:
            NotInTime: it did not end within `timeout` seconds.
        """
        assert self._process is not None, "start first"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"the {self.role} worker did not end in {timeout:g} s") from None

    def close(self) -> None:
        """Kill it if it still runs."""
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
    principals: Mapping[SecuredRole, Settings] = field(default_factory=dict)
    """On secured servers: the settings of each role. `settings` are the administrator's then."""

    open: ClassVar[list[Deployment]] = []
    """All open deployments; `worker_logs` reads their logs for the report of a failure."""

    def start(
        self,
        role: Role,
        launcher: Launcher = command_line,
        /,
        *,
        app: str | None = None,
        **extra: str,
    ) -> WorkerProcess:
        """Start one more worker; it ends with the deployment at the latest.

        `app` and `launcher` are as for a `WorkerProcess`, `extra` are environment variables.
        """
        settings = self.settings_of(role)
        worker = WorkerProcess(role, settings, self.folder, app=app, launcher=launcher)
        self.workers.append(worker)
        worker.start(**extra)
        return worker

    @property
    def client(self) -> Settings:
        """Settings of those who send commands and query."""
        return self.principals.get("client", self.settings)

    def settings_of(self, role: Role) -> Settings:
        """Return the settings of the workers of this role."""
        return self.principals.get(SECURED_ROLES[role], self.settings)

    async def retire(self, worker: WorkerProcess) -> None:
        """Stop one worker with SIGTERM; the others continue.

        Raises:
            Fatal: it did not end in time, or not with code 0.
        """
        code = await asyncio.to_thread(worker.terminate)
        if code:
            raise Fatal(f"a {worker.role} worker ended with code {code} when it was stopped")
        self.workers.remove(worker)  # not before: its log belongs to the report of a failure

    def of(self, role: Role) -> list[WorkerProcess]:
        """Return the workers of one role."""
        return [worker for worker in self.workers if worker.role == role]


@contextmanager
def open_deployment(
    settings: Settings,
    roles: Sequence[Role],
    apps: Mapping[Role, str] = MappingProxyType({}),
    principals: Mapping[SecuredRole, Settings] = MappingProxyType({}),
) -> Iterator[Deployment]:
    """Start a worker of each of these roles, and kill all workers at the end of the block.

    The topics have to exist. `apps` names the modules of other apps than the roles' own, and
    `principals` are those of the deployment.
    """
    with tempfile.TemporaryDirectory(prefix="cqrs-faults-") as folder:
        names = TopicNames.of(settings, USERS.name)
        deployed = Deployment(settings, names, Path(folder), principals=principals)
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
    """Yield a title and the last `lines` of the log of every worker of all open deployments."""
    for deployed in Deployment.open:
        for worker in deployed.workers:
            title = f"{worker.role} worker {worker.pid} in {deployed.settings.namespace}"
            yield title, "\n".join(worker.log_text.splitlines()[-lines:])
