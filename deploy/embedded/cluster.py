"""Several nodes of Kafka or of Elasticsearch that form one cluster.

    with EmbeddedCluster.temporary() as cluster:     # ends with the block, or with this process
        cluster.bootstrap_servers                    # all three nodes of Kafka
        cluster.nodes[0].kill()                      # clients continue with the other two
        cluster.nodes[0].start()                     # the same port, the same data
        cluster.controller                           # kill this node to cause an election

    with ElasticsearchCluster.temporary() as cluster:
        cluster.elasticsearch_url                    # all three nodes of Elasticsearch

Each node is a process with a home folder of its own. A node of Kafka is a broker and a controller:
every record has three replicas and is acknowledged only when at least two of them have it. A node
of Elasticsearch holds data and may be elected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from typing_extensions import Self

from deploy.embedded import elasticsearch, kafka
from deploy.embedded import temporary_homes as temporary
from deploy.embedded.jars import ensure_jars
from deploy.embedded.ports import HOST, free_ports
from deploy.embedded.preconditions import require_disk, require_memory
from deploy.embedded.processes import ServerProcess, start_together
from deploy.embedded.secrets import Secrets
from deploy.embedded.start_progress import Progress

L = TypeVar("L", covariant=True)

_NODES = 3


class Place(NamedTuple):
    """Where a node runs, if not beside this process."""

    address: str = HOST
    inside: Sequence[str] = ()
    """Command that runs another one there, in its own process."""


class _NewListeners(Protocol[L]):
    def __call__(self, public: int, internal: int, /, *, host: str) -> L: ...


class _Cluster(ABC):
    """A cluster with one node per home folder; create and start it with `temporary`."""

    def __init__(
        self,
        homes: Sequence[Path],
        heap_mb: int,
        changes: Mapping[str, object],
        proxy_of: Callable[[int], int],
        places: Sequence[Place],
        secrets: Secrets | None,
    ) -> None:
        self._homes = homes
        self._places = places
        self._changes = changes
        self._secrets = secrets
        ports = free_ports(2 * len(homes))
        self._ports = list(zip(ports[::2], ports[1::2], strict=True))
        self.advertised = [(proxy_of(one), proxy_of(other)) for one, other in self._ports]
        """The ports of each node that others connect to: that for clients, and the nodes' own."""
        self.nodes = tuple(
            self._node(home, heap_mb, ports, place)
            for home, ports, place in zip(homes, self._ports, places, strict=True)
        )

    @classmethod
    @contextmanager
    def temporary(
        cls,
        progress: Progress | None = None,
        *,
        nodes: int = _NODES,
        heap_mb: int = 0,
        changes: Mapping[str, object] = MappingProxyType({}),
        proxy_of: Callable[[int], int] = lambda port: port,
        places: Sequence[Place] = (),
        secrets: Secrets | None = None,
    ) -> Iterator[Self]:
        """Start a new cluster, and remove it at the end of the block.

        `kill -9` of this process also ends the nodes; the next call then removes their folders.

        Args:
            progress: shows what happens.
            nodes: number of nodes; with fewer than three, none may be down.
            heap_mb: MiB of heap of each node; 0 is enough for tests.
            changes: settings of the server in place of those that `configure` chooses.
            proxy_of: opens a proxy to a node's port, and returns the port of the proxy: the one
                that clients and other nodes connect to.
            places: where each node runs.
            secrets: of Kafka only: if given, clients and nodes show who they are, over TLS.

        Raises:
            Fatal: it could not be started; the message is one line with the reason.
        """
        with ExitStack() as resources:
            homes = [resources.enter_context(temporary.home()) for _ in range(nodes)]
            places = places or [Place()] * nodes
            cluster = cls(homes, heap_mb, changes, proxy_of, places, secrets)
            resources.callback(cluster._kill)
            cluster._start(progress or Progress())
            yield cluster

    @abstractmethod
    def _node(
        self, home: Path, heap_mb: int, ports: tuple[int, int], place: Place
    ) -> ServerProcess:
        """Return a node that is not started yet."""

    @abstractmethod
    def _configure(self) -> None:
        """Write the configuration of all nodes."""

    def _start(self, progress: Progress) -> None:
        require_memory([node.heap_mb for node in self.nodes])
        require_disk(self._homes[0])
        ensure_jars(progress)
        self._configure()
        with progress.waiting(f"Starting {len(self.nodes)} {self.nodes[0].title} nodes"):
            start_together(self.nodes)

    def _by_home(
        self, listeners: _NewListeners[L], ports: Sequence[tuple[int, int]]
    ) -> dict[Path, L]:
        """Return what each node listens on, with these ports."""
        return {
            home: listeners(*pair, host=place.address)
            for home, pair, place in zip(self._homes, ports, self._places, strict=True)
        }

    def _addresses(self, scheme: str = "") -> str:
        """Return the addresses of all nodes for clients, separated by commas."""
        return ",".join(
            f"{scheme}{place.address}:{port}"
            for (port, _), place in zip(self.advertised, self._places, strict=True)
        )

    def _kill(self) -> None:
        """Kill all nodes: their data is removed as well, so a clean shutdown is not needed."""
        for node in self.nodes:
            node.kill()


class EmbeddedCluster(_Cluster):
    """A cluster of Kafka."""

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all nodes for Kafka clients: host:port, separated by commas."""
        return self._addresses()

    @property
    def controller(self) -> ServerProcess | None:
        """The node with the active controller; None during an election."""
        seen = [
            kafka.active_controller(home)
            for home, node in zip(self._homes, self.nodes, strict=True)
            if node.is_ready
        ]
        _, id_ = max(seen, default=(-1, -1))
        if id_ < 0:
            return None
        node = self.nodes[id_ - 1]
        return node if node.is_ready else None

    def _node(
        self, home: Path, heap_mb: int, ports: tuple[int, int], place: Place
    ) -> ServerProcess:
        return ServerProcess("kafka", home, heap_mb=heap_mb or 288, inside=place.inside)

    def _configure(self) -> None:
        kafka.configure(
            self._by_home(kafka.Listeners, self._ports),
            advertised=self._by_home(kafka.Listeners, self.advertised),
            changes=self._changes,
            secrets=self._secrets,
        )


class ElasticsearchCluster(_Cluster):
    """A cluster of Elasticsearch; one node may be down while three were started."""

    @property
    def elasticsearch_url(self) -> str:
        """URLs of all nodes for Elasticsearch clients, separated by commas."""
        return self._addresses("http://")

    def node_named(self, name: str) -> ServerProcess:
        """Return the node with this name, as Elasticsearch reports it."""
        return self.nodes[elasticsearch.node_names(len(self.nodes)).index(name)]

    def _node(
        self, home: Path, heap_mb: int, ports: tuple[int, int], place: Place
    ) -> ServerProcess:
        return ServerProcess(
            "elasticsearch",
            home,
            heap_mb=heap_mb or 512,
            healthy=partial(elasticsearch.is_healthy, ports[0], host=place.address),
            inside=place.inside,
        )

    def _configure(self) -> None:
        assert self._secrets is None, "each node would need the files in its own home"
        elasticsearch.configure(
            self._by_home(elasticsearch.Listeners, self._ports),
            advertised=self._by_home(elasticsearch.Listeners, self.advertised),
            changes=self._changes,
        )
