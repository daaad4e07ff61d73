"""The embedded stack: one Kafka and one Elasticsearch that belong together.

    stack = EmbeddedStack()                      # the one of `cqrs up`
    stack.up()                                   # lives on when this process ends

    with EmbeddedStack.temporary() as stack:     # gone at the end, whatever ends this process
        stack.bootstrap_servers, stack.elasticsearch_url
        stack.kafka.kill()
        stack.kafka.start()                      # the same port, the same data

Both servers are started by `deploy.embedded.processes` and run in `deploy.embedded.jvm`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from deploy.embedded import elasticsearch, kafka
from deploy.embedded import temporary_homes as temporary
from deploy.embedded.jars import ensure_jars
from deploy.embedded.ports import Ports, choose_ports, require_free
from deploy.embedded.preconditions import require_disk, require_memory
from deploy.embedded.processes import ServerProcess, start_together
from deploy.embedded.shared_files import locked
from deploy.embedded.start_progress import Progress
from deploy.embedded.status import StackStatus, status_of
from models.errors import Fatal
from streams.settings import read_folder

_CONTENT = ("data", "logs", "config", "tmp", "stack.json", "kafka.json", "elasticsearch.json")


@dataclass(frozen=True)
class StackAddress:
    """What clients need to know of a running stack."""

    bootstrap_servers: str
    elasticsearch_url: str


def default_home() -> Path:
    """Where the stack of `cqrs up` lives: `CQRS_STACK_HOME`, else the user's data folder."""
    return read_folder("stack_home") or platformdirs.user_data_path("cqrs-streams") / "stack"


def running_address(home: Path | None = None) -> StackAddress | None:
    """The addresses of the stack that runs in `home` (the user's own if not given), if one does."""
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
        self.home = (home or default_home()).absolute()
        self.kafka = ServerProcess("kafka", self.home, heap_mb=kafka_heap_mb)
        self.elasticsearch = ServerProcess(
            "elasticsearch",
            self.home,
            heap_mb=elasticsearch_heap_mb,
            healthy=lambda: elasticsearch.is_healthy(self._ports.elasticsearch),
        )
        self._servers = (self.kafka, self.elasticsearch)
        self._named_ports = (kafka_port, elasticsearch_port)

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
            with stack.borrowed(progress):
                yield stack

    @contextmanager
    def borrowed(self, progress: Progress | None = None) -> Iterator[StackAddress]:
        """The stack for the time of the block: one that runs is used and left running.

        Otherwise it is started, and stopped after the block. Even `kill -9` of this process ends
        the servers that it has started.
        """
        try:
            yield self.up(progress, detached=False)
        finally:
            for server in self._servers:
                if server.is_ours:
                    server.stop()

    @property
    def bootstrap_servers(self) -> str:
        """What a Kafka client is given."""
        return self._ports.bootstrap_servers

    @property
    def elasticsearch_url(self) -> str:
        """What an Elasticsearch client is given."""
        return self._ports.elasticsearch_url

    @property
    def address(self) -> StackAddress:
        """Both addresses."""
        return StackAddress(self.bootstrap_servers, self.elasticsearch_url)

    @property
    def is_running(self) -> bool:
        """Whether both servers run and have said that they serve."""
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
            missing = [server for server in self._servers if not server.is_ready]
            ports = self._prepare(missing, progress)
            if not missing:
                return self.address
            kafka.configure({self.home: kafka.Listeners(ports.kafka, ports.controller)})
            elasticsearch.configure(self.home, port=ports.elasticsearch)
            ports.write(self._stack_json)
            names = " and ".join(server.title for server in missing)
            with progress.waiting(f"Starting {names}"):
                start_together(missing)
            if detached:
                for server in missing:
                    server.release()
            return self.address

    def down(self, purge: bool = False) -> None:
        """Stop what runs; with `purge`, remove the data, the logs and the remembered ports too."""
        if not self.home.exists():
            return
        with self._locked():
            for server in self._servers:
                server.stop()
            for name in _CONTENT if purge else ():
                path = self.home / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def status(self) -> StackStatus:
        """What runs where, and how much it takes."""
        return status_of(self.home, self._servers, Ports.read(self._stack_json))

    @property
    def _stack_json(self) -> Path:
        return self.home / "stack.json"

    @property
    def _ports(self) -> Ports:
        ports = Ports.read(self._stack_json)
        if ports is None:
            raise Fatal(f"no stack was started in {self.home}: start one with `cqrs up`")
        return ports

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time, whatever the process."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            (self.home / ".lock").touch()
        except OSError as error:
            raise Fatal(f"cannot keep the stack in {self.home}: {error.strerror}") from error
        with locked(self.home / ".lock"):
            yield

    def _prepare(self, missing: list[ServerProcess], progress: Progress) -> Ports:
        """Make sure that `missing` can start: ports, memory, disk, jars."""
        for server in missing:
            server.kill()  # what an interrupted start may have left
        last = Ports.read(self._stack_json)
        ports = choose_ports(last, *self._named_ports)
        running = [server.name for server in self._servers if server not in missing]
        for name, option in (("kafka", "--kafka-port"), ("elasticsearch", "--elasticsearch-port")):
            port = getattr(ports, name)
            if name not in running:
                require_free(port, option)
            elif last is not None and port != getattr(last, name):
                raise Fatal(
                    f"{name} runs already, on port {getattr(last, name)}; "
                    "stop the stack with `cqrs down` to give it another"
                )
        if missing:
            require_memory([server.heap_mb for server in missing])
            require_disk(self.home)
            ensure_jars(progress)
        return ports
