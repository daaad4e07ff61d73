"""The embedded stack: one Kafka and one Elasticsearch that belong together.

    stack = EmbeddedStack()                      # the one of `cqrs up`
    stack.up()                                   # keeps running when this process ends

    with EmbeddedStack.temporary() as stack:     # ends with the block, or with this process
        stack.bootstrap_servers, stack.elasticsearch_url
        stack.kafka.kill()
        stack.kafka.start()                      # the same port, the same data

Both servers are started by `deploy.embedded.processes` and run in `deploy.embedded.jvm`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from deploy.embedded import elasticsearch, kafka
from deploy.embedded import temporary_homes as temporary
from deploy.embedded.jars import ensure_jars
from deploy.embedded.lockfile import SECURITY
from deploy.embedded.ports import HOST, Ports, choose_ports, require_free
from deploy.embedded.preconditions import require_disk, require_memory
from deploy.embedded.processes import Compiler, ServerProcess, all_or_none, start_together
from deploy.embedded.secrets import ADMIN, Secrets
from deploy.embedded.shared_files import locked, write_atomically
from deploy.embedded.start_progress import Progress
from deploy.embedded.status import StackStatus, status_of
from models.errors import Fatal
from streams.encryption.keys import new_master_key
from streams.private_folders import ensure_private
from streams.settings import Settings, read_folder, read_settings

_CONTENT = (
    *("data", "logs", "config", "tmp", "snapshots", "workers"),
    *("stack.json", "kafka.json", "elasticsearch.json"),
)


@dataclass(frozen=True)
class StackAddress:
    """Addresses of a running stack, for clients."""

    bootstrap_servers: str
    elasticsearch_url: str
    master_key_file: Path | None = None
    """Of a stack that encrypts personal data (`EmbeddedStack.encrypt`)."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The settings that clients need, by name; of a secured stack more is needed."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "elasticsearch_url": self.elasticsearch_url,
            **self.encryption,
        }

    @property
    def encryption(self) -> Mapping[str, object]:
        """The settings of encryption, by name; none if it is off."""
        if self.master_key_file is None:
            return {}
        return {"encrypt_personal_data": True, "master_key_file": self.master_key_file}

    @property
    def is_secure(self) -> bool:
        """Whether clients have to authenticate."""
        return self.elasticsearch_url.startswith("https:")


def default_home() -> Path:
    """Return the folder of the `cqrs up` stack: `CQRS_STACK_HOME`, or in the user's data folder."""
    return read_folder("stack_home") or platformdirs.user_data_path("cqrs-streams") / "stack"


def running_address(home: Path | None = None) -> StackAddress | None:
    """Return the addresses of the stack in `home`, or None if none of its servers runs.

    Without `home` it is the stack of `cqrs up`. With one server down, the other one is of use.
    """
    stack = EmbeddedStack(home)
    return stack.address if stack.runs_in_part else None


class EmbeddedStack:
    """A stack with all its files in one folder.

    Args:
        home: that folder; without it, the one of `cqrs up`.
        kafka_port: port of Kafka; without it the last one, or a free one at the first start. 0
            chooses a new free one.
        elasticsearch_port: the same for Elasticsearch.
        secure: whether to start it with TLS, authentication and ACLs; a secured stack stays so.
        kafka_heap_mb: heap of Kafka in MiB.
        elasticsearch_heap_mb: heap of Elasticsearch in MiB.
        compiler: that of both JVMs; the quick one is for all but measurements and long runs.
        kafka_jars: key of `ROOTS`, to run an older Kafka.
        elasticsearch_jars: the same for Elasticsearch.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        secure: bool = False,
        kafka_port: int | None = None,
        elasticsearch_port: int | None = None,
        kafka_heap_mb: int = 512,
        elasticsearch_heap_mb: int = 768,
        compiler: Compiler = "quick",
        kafka_jars: str | None = None,
        elasticsearch_jars: str | None = None,
    ) -> None:
        self.home = (home or default_home()).absolute()
        self.secrets = Secrets(self.home)
        """The files of a secured stack."""
        self.kafka = ServerProcess(
            "kafka", self.home, heap_mb=kafka_heap_mb, compiler=compiler, jars=kafka_jars
        )
        self.elasticsearch = ServerProcess(
            "elasticsearch",
            self.home,
            heap_mb=elasticsearch_heap_mb,
            compiler=compiler,
            jars=elasticsearch_jars,
            healthy=lambda: elasticsearch.is_healthy(
                self._ports.elasticsearch, self.secrets if self._ports.secure else None
            ),
        )
        self._secure = secure
        self._servers = (self.kafka, self.elasticsearch)
        self._named_ports = (kafka_port, elasticsearch_port)

    @classmethod
    @contextmanager
    def temporary(
        cls,
        progress: Progress | None = None,
        *,
        secure: bool = False,
        kafka_heap_mb: int = 384,
        elasticsearch_heap_mb: int = 512,
        compiler: Compiler = "quick",
        kafka_jars: str | None = None,
        elasticsearch_jars: str | None = None,
    ) -> Iterator[EmbeddedStack]:
        """Start a stack in a new folder, and remove it at the end of the block.

        `kill -9` of this process also ends the servers; the next call then removes the folder.
        """
        with temporary.home() as home:
            stack = cls(
                home,
                secure=secure,
                kafka_heap_mb=kafka_heap_mb,
                elasticsearch_heap_mb=elasticsearch_heap_mb,
                compiler=compiler,
                kafka_jars=kafka_jars,
                elasticsearch_jars=elasticsearch_jars,
            )
            with stack.borrowed(progress):
                yield stack

    @contextmanager
    def borrowed(self, progress: Progress | None = None) -> Iterator[StackAddress]:
        """Start the servers that do not run yet, and stop those at the end of the block.

        Servers that ran before are used and left running. `kill -9` of this process also ends the
        servers that it started.
        """
        try:
            yield self.up(progress, detached=False)
        finally:
            for server in self._servers:
                if server.is_ours:
                    server.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Address for Kafka clients: host:port."""
        return self._ports.bootstrap_servers

    @property
    def elasticsearch_url(self) -> str:
        """URL for Elasticsearch clients."""
        return self._ports.elasticsearch_url

    @property
    def certificates_address(self) -> str:
        """Address of a secured Kafka for clients that show a certificate: host:port."""
        return f"{HOST}:{self._ports.kafka_certificates}"

    @property
    def address(self) -> StackAddress:
        """Both addresses, for clients."""
        key = self._master_key_file
        return StackAddress(
            self.bootstrap_servers, self.elasticsearch_url, key if key.exists() else None
        )

    @property
    def is_running(self) -> bool:
        """Whether both servers run and have recorded that they are ready."""
        return all(server.is_ready for server in self._servers)

    @property
    def runs_in_part(self) -> bool:
        """Whether one of the servers runs and has recorded that it is ready, or both do."""
        return any(server.is_ready for server in self._servers)

    def worker_list(self, role: str) -> Path:
        """Return the file that lists the workers of a role (`deploy/scraping.py`), if any run."""
        folder = self.home / "workers"
        folder.mkdir(exist_ok=True)
        return folder / f"{role}.json"

    @property
    def worker_lists(self) -> list[Path]:
        """The lists of the workers that run on this stack."""
        return sorted((self.home / "workers").glob("*.json"))

    def encrypt(self) -> None:
        """Encrypt personal data from now on, with a master key that is kept in the home.

        It stays so until the stack is purged, and `settings` contain it.
        """
        with self._locked():
            if not self._master_key_file.exists():
                self._master_key_file.parent.mkdir(exist_ok=True)
                write_atomically(self._master_key_file, new_master_key(), mode=0o600)

    def up(self, progress: Progress | None = None, *, detached: bool = True) -> StackAddress:
        """Start the servers that do not run yet, and wait until they can be used.

        Args:
            progress: shows what happens.
            detached: whether the servers outlive this process; otherwise they end with it.

        Raises:
            Fatal: a server cannot be started; the message is one line with the reason. On this and
                any other exception, the servers that this call started are killed, or end by
                themselves within a second.
        """
        progress = progress or Progress()
        with self._locked():
            missing = [server for server in self._servers if not server.is_ready]
            ports = self._prepare(missing, progress)
            if not missing:
                return self.address
            listeners = kafka.Listeners(ports.kafka, ports.controller, ports.kafka_certificates)
            if ports.secure:
                self.secrets.ensure()
            kafka.configure({self.home: listeners}, secrets=self.secrets if ports.secure else None)
            listener = elasticsearch.Listeners(ports.elasticsearch)
            elasticsearch.configure({self.home: listener}, secure=ports.secure)
            ports.write(self._stack_json)
            names = " and ".join(server.title for server in missing)
            with progress.waiting(f"Starting {names}"), all_or_none(missing):
                start_together(missing)
                if ports.secure:
                    self._grant(ports)
                for server in missing if detached else ():
                    server.release()
            return self.address

    def down(self, purge: bool = False) -> None:
        """Stop the servers; with `purge` also remove their data, snapshots, logs and ports."""
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
        """Return for each server its state, address, memory and data."""
        return status_of(self.home, self._servers, Ports.read(self._stack_json))

    def settings(self, principal: str) -> Mapping[str, object]:
        """Return the settings of a principal's connections (`Secrets.settings`), by name.

        Of a stack that is not secured they are the same for all.
        """
        if not self._ports.secure:
            return self.address.settings
        return {**self.secrets.settings(principal, self._ports), **self.address.encryption}

    def _grant(self, ports: Ports) -> None:
        """Give the roles their rights in `CQRS_NAMESPACE`, and write the files to source."""
        from deploy.embedded.grants import grant_roles

        # The environment may name another principal.
        admin = Settings.without_environment(
            {**self.secrets.settings(ADMIN, ports), "namespace": read_settings().namespace}
        )
        asyncio.run(grant_roles(admin, self.secrets))
        self.secrets.write_environments(ports)

    @property
    def _master_key_file(self) -> Path:
        return self.home / "config" / "master-key"

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
        """Let only one `up` or `down` run at a time, over all processes.

        The lock's file says that the folder is a stack's: nothing is written to the folder of
        somebody else, or removed from it.
        """
        lock = self.home / ".lock"
        try:
            if self.home.is_dir() and not lock.exists() and any(self.home.iterdir()):
                raise Fatal(
                    f"{self.home} has other files than those of a stack: name an empty folder, or "
                    "a new one, with CQRS_STACK_HOME"
                )
            ensure_private(self.home)
            lock.touch()
        except OSError as error:
            raise Fatal(f"cannot keep the stack in {self.home}: {error.strerror}") from error
        with locked(lock):
            yield

    def _prepare(self, missing: list[ServerProcess], progress: Progress) -> Ports:
        """Check that `missing` can start (ports, memory, disk), and download its jars."""
        for server in missing:
            server.kill()  # an interrupted start may have left it
        last = Ports.read(self._stack_json)
        if self._secure and last is not None and not last.secure:
            raise Fatal(
                f"the stack in {self.home} is not secured, and its data stays so: remove it with "
                "`cqrs down --purge`"
            )
        ports = choose_ports(last, *self._named_ports, secure=self._secure)
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
            jars = [server.jars for server in self._servers]
            ensure_jars(progress, [*jars, SECURITY] if ports.secure else jars)
        return ports
