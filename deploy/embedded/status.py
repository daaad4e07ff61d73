"""State, address, memory and data of each server of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.ports import Ports
from deploy.embedded.preconditions import size_mb
from deploy.embedded.processes import ServerProcess


@dataclass(frozen=True)
class ServerStatus:
    """State of one server."""

    name: str
    """`kafka` or `elasticsearch`."""
    state: str
    """`running`, `starting` or `stopped`; of a server elsewhere `running` or `does not answer`."""
    pid: int | None
    """Its process; None if it does not run, or runs elsewhere."""
    address: str | None
    """Also if it does not run; None before the first start."""
    memory_mb: int
    """In MiB, as the next one; 0 if it is not known."""
    data_mb: int


@dataclass(frozen=True)
class StackStatus:
    """State of a stack: what `cqrs status` shows."""

    home: Path
    running: bool  # whether both servers run
    servers: tuple[ServerStatus, ...]


def status_of(home: Path, servers: Sequence[ServerProcess], ports: Ports | None) -> StackStatus:
    """Return the state of the stack in `home`; `ports` is None before its first start."""
    addresses = {}
    if ports:
        addresses = {"kafka": ports.bootstrap_servers, "elasticsearch": ports.elasticsearch_url}
    found = tuple(
        ServerStatus(
            name=server.name,
            state="running" if server.is_ready else "starting" if server.pid else "stopped",
            pid=server.pid,
            address=addresses.get(server.name),
            memory_mb=server.memory_mb,
            data_mb=size_mb(home / "data" / server.name),
        )
        for server in servers
    )
    return StackStatus(home, all(server.state == "running" for server in found), found)
