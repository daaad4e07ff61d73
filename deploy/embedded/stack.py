"""The embedded stack: one Kafka and one Elasticsearch that belong together.

stack = EmbeddedStack()                      # the one of `cqrs up`
stack.up()                                   # lives on when this process ends

with EmbeddedStack.temporary() as stack:     # gone at the end, whatever ends this process
stack.bootstrap_servers, stack.elasticsearch_url
stack.kafka.kill()
stack.kafka.start()                      # the same port, the same data
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
import psutil

from deploy.embedded import elasticsearch, kafka, temporary
from deploy.embedded.files import locked, write_atomically
from deploy.embedded.jars import ensure_jars
from deploy.embedded.ports import Ports, free_ports, is_free, require_free
from deploy.embedded.processes import START_SECONDS, ServerProcess
from deploy.embedded.progress import Progress
from models.errors import Fatal

_JVM_MB = 200  # what a server takes besides its heap
_DISK_MB = 500
_FILES = ("stack.json", "kafka.properties", "elasticsearch.settings.json")
_FOLDERS = ("data", "logs", "config", "tmp")


@dataclass(frozen=True)
class StackAddress:
    """What clients need to know of a running stack."""

    bootstrap_servers: str
    elasticsearch_url: str


@dataclass(frozen=True)
class ServerStatus:
    """One server of a stack, as `cqrs status` shows it."""

    name: str
    running: bool
    pid: int | None
    address: str | None
    memory_mb: int
    data_mb: int


@dataclass(frozen=True)
class StackStatus:
    """A stack, as `cqrs status` shows it."""

    home: Path
    servers: tuple[ServerStatus, ...]

    @property
    def running(self) -> bool:
        """Whether both servers run."""
        return all(server.running for server in self.servers)


def default_home() -> Path:
    """Where the stack of `cqrs up` lives: `CQRS_STACK_HOME`, else the user's data folder."""
    named = os.environ.get("CQRS_STACK_HOME")
    if named:
        return Path(named).expanduser().absolute()
    return platformdirs.user_data_path("cqrs-streams") / "stack"


def running_address(home: Path | None = None) -> StackAddress | None:
    """The addresses of the stack that runs in `home`, if one does."""
    stack = EmbeddedStack(home)
    return stack.address if stack.is_running else None


class EmbeddedStack:
    """A stack that keeps everything it has in one folder.

    Args:
        home: that folder; the user's own stack if not given.
        kafka_port: where Kafka listens; if not given the port it had last, else a free one;
            0 for a new free one.
        elasticsearch_port: the same for Elasticsearch.
        kafka_heap_mb: MiB of heap.
        elasticsearch_heap_mb: MiB of heap.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        kafka_port: int | None = None,
        elasticsearch_port: int | None = None,
        kafka_heap_mb: int = 512,
        elasticsearch_heap_mb: int = 768,
    ) -> None:
        self.home = home or default_home()
        self._kafka_port = kafka_port
        self._elasticsearch_port = elasticsearch_port
        self.kafka = ServerProcess("kafka", self.home, heap_mb=kafka_heap_mb)
        self.elasticsearch = ServerProcess(
            "elasticsearch",
            self.home,
            heap_mb=elasticsearch_heap_mb,
            healthy=lambda: elasticsearch.is_healthy(self.elasticsearch_url),
        )
        self._servers = (self.kafka, self.elasticsearch)

    @classmethod
    @contextmanager
    def temporary(
        cls,
        progress: Progress | None = None,
        *,
        kafka_heap_mb: int = 384,
        elasticsearch_heap_mb: int = 512,
    ) -> Iterator[EmbeddedStack]:
        """A stack in a folder of its own that ends with the block, or with this process.

        Even `kill -9` of this process ends the servers; the folder then goes at the next call.
        """
        with temporary.home() as home:
            stack = cls(
                home, kafka_heap_mb=kafka_heap_mb, elasticsearch_heap_mb=elasticsearch_heap_mb
            )
            try:
                stack.up(progress, detached=False)
                yield stack
            finally:
                stack.down()

    @property
    def bootstrap_servers(self) -> str:
        """What a Kafka client is given."""
        return self._remembered_ports().bootstrap_servers

    @property
    def elasticsearch_url(self) -> str:
        """What an Elasticsearch client is given."""
        return self._remembered_ports().elasticsearch_url

    @property
    def address(self) -> StackAddress:
        """Both addresses."""
        return StackAddress(self.bootstrap_servers, self.elasticsearch_url)

    @property
    def is_running(self) -> bool:
        """Whether both servers run and serve."""
        return all(server.is_ready for server in self._servers)

    def up(self, progress: Progress | None = None, *, detached: bool = True) -> StackAddress:
        """Start what does not run yet and wait until it serves.

        Args:
            progress: is told what happens.
            detached: the servers outlive this process; otherwise they end with it.

        Raises:
            Fatal: with one line that says what is missing or in the way. What this call has
                started is stopped again, as it is on any other exception.
        """
        progress = progress or Progress()
        with self._locked():
            if self.is_running:
                self._refuse_other_ports()
                return self.address
            missing = [server for server in self._servers if not server.is_ready]
            for server in missing:
                server.kill()  # what an interrupted start may have left
            ports = self._choose_ports(missing)
            self._require_resources(missing)
            ensure_jars(progress)
            kafka.configure(self.home, port=ports.kafka, controller_port=ports.controller)
            elasticsearch.configure(self.home, port=ports.elasticsearch)
            self._remember(ports)
            progress.step(f"Starting {' and '.join(server.title for server in missing)}")
            try:
                for server in missing:
                    server.spawn()
                deadline = time.monotonic() + START_SECONDS
                for server in missing:
                    server.wait_ready(deadline)
                    progress.step(f"{server.title} is up")
                if detached:
                    for server in missing:
                        server.release()
            except BaseException:
                for server in missing:
                    server.kill()
                raise
            return self.address

    def down(self, purge: bool = False) -> None:
        """Stop what runs; with `purge`, remove the data, the logs and the remembered ports too."""
        if not self.home.exists():
            return
        with self._locked():
            for server in self._servers:
                server.stop()
            if purge:
                for folder in _FOLDERS:
                    shutil.rmtree(self.home / folder, ignore_errors=True)
                for file in _FILES:
                    (self.home / file).unlink(missing_ok=True)

    def status(self) -> StackStatus:
        """What runs where, and how much it takes."""
        ports = self._known_ports()
        addresses = {
            "kafka": ports.bootstrap_servers if ports else None,
            "elasticsearch": ports.elasticsearch_url if ports else None,
        }
        return StackStatus(
            self.home,
            tuple(
                ServerStatus(
                    name=server.name,
                    running=server.is_ready,
                    pid=server.process.pid if server.process else None,
                    address=addresses[server.name],
                    memory_mb=server.memory_mb,
                    data_mb=_size_mb(self.home / "data" / server.name),
                )
                for server in self._servers
            ),
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time, whatever the process."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Fatal(f"cannot use {self.home} for the stack: {error.strerror}") from error
        with locked(self.home / ".lock"):
            yield

    def _known_ports(self) -> Ports | None:
        try:
            return Ports(**json.loads((self.home / "stack.json").read_text())["ports"])
        except FileNotFoundError:
            return None

    def _remembered_ports(self) -> Ports:
        ports = self._known_ports()
        if ports is None:
            raise Fatal(f"no stack was ever started in {self.home}")
        return ports

    def _remember(self, ports: Ports) -> None:
        """Write `stack.json`, in which clients of any language find the addresses."""
        content = {
            "bootstrap_servers": ports.bootstrap_servers,
            "elasticsearch_url": ports.elasticsearch_url,
            "ports": asdict(ports),
        }
        write_atomically(self.home / "stack.json", json.dumps(content, indent=1))

    def _refuse_other_ports(self) -> None:
        ports = self._remembered_ports()
        for named, actual in (
            (self._kafka_port, ports.kafka),
            (self._elasticsearch_port, ports.elasticsearch),
        ):
            if named not in (None, 0, actual):
                raise Fatal(f"the stack runs already, on port {actual}: stop it with `cqrs down`")

    def _choose_ports(self, missing: list[ServerProcess]) -> Ports:
        """Named ports first, then the last ones, then free ones; those of `missing` must be free."""
        known = self._known_ports()
        some_free = free_ports(3)
        last = known or Ports(*some_free)
        kafka_port = last.kafka if self._kafka_port is None else self._kafka_port or some_free[0]
        elasticsearch_port = (
            last.elasticsearch
            if self._elasticsearch_port is None
            else self._elasticsearch_port or some_free[2]
        )
        controller = last.controller
        if self.kafka in missing:
            require_free(kafka_port, "--kafka-port")
            if not is_free(controller):  # nobody else knows it, so that it may change
                controller = some_free[1]
        if self.elasticsearch in missing:
            require_free(elasticsearch_port, "--elasticsearch-port")
        return Ports(kafka_port, controller, elasticsearch_port)

    def _require_resources(self, missing: list[ServerProcess]) -> None:
        needed = sum(server.heap_mb + _JVM_MB for server in missing)
        free = psutil.virtual_memory().available >> 20
        if free < needed:
            raise Fatal(f"too little memory: the stack needs {needed} MB, {free} MB are free")
        free = shutil.disk_usage(self.home).free >> 20
        if free < _DISK_MB:
            raise Fatal(
                f"too little disk space in {self.home}: the stack needs {_DISK_MB} MB, "
                f"{free} MB are free"
            )


def _size_mb(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) >> 20
