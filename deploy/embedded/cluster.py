"""Three Kafka nodes that form one cluster, which loses nothing when one of them is down.

    with EmbeddedCluster.temporary() as cluster:     # ends with the block, or with this process
        cluster.bootstrap_servers                    # all three nodes
        cluster.nodes[0].kill()                      # clients continue with the other two
        cluster.nodes[0].start()                     # the same port, the same data
        cluster.controller                           # kill this node to cause an election

Each node is a broker and a controller in one process, with a home folder of its own. Every record
has three replicas and is acknowledged only when at least two of them have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

from deploy.embedded import kafka
from deploy.embedded import temporary_homes as temporary
from deploy.embedded.jars import ensure_jars
from deploy.embedded.ports import HOST, free_ports
from deploy.embedded.preconditions import require_disk, require_memory
from deploy.embedded.processes import ServerProcess, start_together
from deploy.embedded.start_progress import Progress

_NODES = 3


class EmbeddedCluster:
    """A cluster with one node per home folder; create and start it with `temporary`."""

    def __init__(
        self,
        homes: Sequence[Path],
        heap_mb: int,
        changes: Mapping[str, object],
        proxy_of: Callable[[int], int],
    ) -> None:
        self._homes = homes
        self._changes = changes
        ports = free_ports(2 * len(homes))
        self._ports = [kafka.Listeners(*pair) for pair in zip(ports[::2], ports[1::2], strict=True)]
        self.advertised = [kafka.Listeners(*map(proxy_of, pair)) for pair in self._ports]
        """The ports of each node that clients and other nodes connect to."""
        self.nodes = tuple(ServerProcess("kafka", home, heap_mb=heap_mb) for home in homes)

    @classmethod
    @contextmanager
    def temporary(
        cls,
        progress: Progress | None = None,
        *,
        nodes: int = _NODES,
        heap_mb: int = 288,
        changes: Mapping[str, object] = MappingProxyType({}),
        proxy_of: Callable[[int], int] = lambda port: port,
    ) -> Iterator[EmbeddedCluster]:
        """Start a new cluster, and remove it at the end of the block.

        `kill -9` of this process also ends the nodes; the next call then removes their folders.

        Args:
            progress: shows what happens.
            nodes: number of nodes; with fewer than three, none may be down.
            heap_mb: MiB of heap of each node.
            changes: settings of Kafka in place of those that `kafka.configure` chooses.
            proxy_of: opens a proxy to a node's port, and returns the port of the proxy: the one
                that clients and other nodes connect to.

        Raises:
            Fatal: it could not be started; the message is one line with the reason.
        """
        with ExitStack() as resources:
            homes = [resources.enter_context(temporary.home()) for _ in range(nodes)]
            cluster = cls(homes, heap_mb, changes, proxy_of)
            resources.callback(cluster._kill)
            cluster._start(progress or Progress())
            yield cluster

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all nodes for Kafka clients: host:port, separated by commas."""
        return ",".join(f"{HOST}:{ports.broker}" for ports in self.advertised)

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

    def _start(self, progress: Progress) -> None:
        require_memory([node.heap_mb for node in self.nodes])
        require_disk(self._homes[0])
        ensure_jars(progress)
        kafka.configure(
            dict(zip(self._homes, self._ports, strict=True)),
            advertised=dict(zip(self._homes, self.advertised, strict=True)),
            changes=self._changes,
        )
        with progress.waiting(f"Starting {len(self.nodes)} Kafka nodes"):
            start_together(self.nodes)

    def _kill(self) -> None:
        """Kill all nodes: their data is removed as well, so a clean shutdown is not needed."""
        for node in self.nodes:
            node.kill()
