"""The ports of one stack: free ones unless named, and remembered from then on."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from models.errors import Fatal

HOST = "127.0.0.1"
# Below what systems hand out for outgoing connections (Linux 32768, macOS 49152): while a server
# is down, a client that keeps trying must not be given the server's own port.
_CANDIDATES = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """Where the servers listen on 127.0.0.1."""

    kafka: int
    controller: int  # of Kafka, for itself alone
    elasticsearch: int

    @property
    def bootstrap_servers(self) -> str:
        """What a Kafka client is given."""
        return f"{HOST}:{self.kafka}"

    @property
    def elasticsearch_url(self) -> str:
        """What an Elasticsearch client is given."""
        return f"http://{HOST}:{self.elasticsearch}"


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise Fatal(f"no free port between {_CANDIDATES.start} and {_CANDIDATES.stop}")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def require_free(port: int, option: str) -> None:
    """Fail with one line if `port` is taken."""
    if not is_free(port):
        raise Fatal(f"port {port} on {HOST} is in use; choose another with {option} (0: any free)")
