"""Ports of a stack: free ones unless they are named; later starts use the same ones."""

from __future__ import annotations

import json
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.embedded.shared_files import write_atomically
from models.errors import Fatal

HOST = "127.0.0.1"
# Below the ports of outgoing connections (Linux: from 32768, macOS: from 49152). Otherwise a client
# that tries to connect to a server that is down could itself get the server's port.
_CANDIDATES = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """Where the servers listen on 127.0.0.1."""

    kafka: int
    controller: int  # of Kafka, used by Kafka only
    elasticsearch: int
    kafka_certificates: int = 0
    """Of Kafka, for clients that show a certificate; 0: the stack is not secured."""

    @property
    def secure(self) -> bool:
        """Whether the servers use TLS and authenticate their clients."""
        return self.kafka_certificates != 0

    @property
    def bootstrap_servers(self) -> str:
        """Address for Kafka clients: host:port."""
        return f"{HOST}:{self.kafka}"

    @property
    def elasticsearch_url(self) -> str:
        """URL for Elasticsearch clients."""
        return f"{'https' if self.secure else 'http'}://{HOST}:{self.elasticsearch}"

    @classmethod
    def read(cls, path: Path) -> Ports | None:
        """Read the ports that `write` stored at `path`; None if there is no such file.

        Raises:
            Fatal: the file is damaged.
        """
        try:
            return cls(**json.loads(path.read_text())["ports"])
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise Fatal(f"{path} is damaged: remove it, and the stack gets new ports") from error

    def write(self, path: Path) -> None:
        """Store the ports, and the addresses for clients in any language."""
        content = {
            "bootstrap_servers": self.bootstrap_servers,
            "elasticsearch_url": self.elasticsearch_url,
            "ports": asdict(self),
        }
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def choose_ports(
    last: Ports | None, kafka: int | None, elasticsearch: int | None, *, secure: bool = False
) -> Ports:
    """Choose for each server the named port, else the last one, else a free one.

    A named 0 means a free one, even if there is a last one. A stack stays secured, or not, as long
    as it has its ports.
    """
    free = Ports(*free_ports(4 if secure else 3))
    last = last or free
    return Ports(
        kafka=last.kafka if kafka is None else kafka or free.kafka,
        # No client uses this one, so it may change.
        controller=last.controller if is_free(last.controller) else free.controller,
        elasticsearch=(
            last.elasticsearch if elasticsearch is None else elasticsearch or free.elasticsearch
        ),
        kafka_certificates=last.kafka_certificates,
    )


def require_free(port: int, option: str) -> None:
    """Check that `port` is free.

    Raises:
        Fatal: it is in use; names the option that chooses another one.
    """
    if not is_free(port):
        raise Fatal(f"port {port} on {HOST} is in use; choose another with {option} (0: any free)")


def is_free(port: int) -> bool:
    """Check whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that servers could listen on now.

    Raises:
        Fatal: not enough ports are free.
    """
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise Fatal(f"no free port from {_CANDIDATES.start} to {_CANDIDATES.stop - 1} on {HOST}")
