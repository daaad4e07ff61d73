"""The ports of one stack: free ones unless named, and remembered from then on."""

from __future__ import annotations

import json
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.embedded.shared_files import write_atomically
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

    @classmethod
    def read(cls, path: Path) -> Ports | None:
        """The ports that `write` has remembered at `path`, if any."""
        try:
            return cls(**json.loads(path.read_text())["ports"])
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise Fatal(f"{path} is damaged: remove it, and the stack gets new ports") from error

    def write(self, path: Path) -> None:
        """Remember the ports, with the addresses for clients of any language."""
        content = {
            "bootstrap_servers": self.bootstrap_servers,
            "elasticsearch_url": self.elasticsearch_url,
            "ports": asdict(self),
        }
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def choose_ports(last: Ports | None, kafka: int | None, elasticsearch: int | None) -> Ports:
    """Named ports before the last ones, the last ones before free ones; a named 0 is a free one."""
    free = Ports(*free_ports(3))
    last = last or free
    return Ports(
        kafka=last.kafka if kafka is None else kafka or free.kafka,
        # Nobody else knows this one, so that it may change.
        controller=last.controller if is_free(last.controller) else free.controller,
        elasticsearch=(
            last.elasticsearch if elasticsearch is None else elasticsearch or free.elasticsearch
        ),
    )


def require_free(port: int, option: str) -> None:
    """Fail if `port` is taken.

    Raises:
        Fatal: with one line that names the port and the option to choose another.
    """
    if not is_free(port):
        raise Fatal(f"port {port} on {HOST} is in use; choose another with {option} (0: any free)")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports that servers could listen on now.

    Raises:
        Fatal: there are not so many.
    """
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise Fatal(f"no free port from {_CANDIDATES.start} to {_CANDIDATES.stop - 1} on {HOST}")
