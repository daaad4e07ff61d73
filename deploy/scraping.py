"""Where Prometheus finds the metrics of several worker processes on one host.

Each process serves its own, on the port after that of the process before. The list of them is a
file for Prometheus' `file_sd_configs`, which it reads again whenever it changes.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.embedded.shared_files import alone
from models.errors import Fatal
from streams.settings import Settings

_HIGHEST_PORT = 65535


def settings_of_each(settings: Settings, processes: int) -> list[Settings]:
    """Return the settings of each of several processes: `health_port` and the ports after it.

    Raises:
        Fatal: there are not as many ports.
    """
    first = settings.health_port
    if not first:  # none, or any free one
        return [settings] * processes
    if first + processes - 1 > _HIGHEST_PORT:
        raise Fatal(f"CQRS_HEALTH_PORT={first} leaves no ports for {processes} processes")
    return [
        settings.model_copy(update={"health_port": first + number}) for number in range(processes)
    ]


@contextmanager
def listed_targets(path: Path, role: str, processes: Sequence[Settings]) -> Iterator[None]:
    """List these processes of a role in a file, for the time of the block.

    If this process is killed the file stays, and Prometheus notices that nobody answers there.
    A lock beside the file always stays.

    Raises:
        Fatal: they have no fixed ports, the file cannot be written, or it is the list of others.
    """
    ports = [one.health_port for one in processes]
    if not all(ports):
        raise Fatal("there is nothing to scrape: set CQRS_HEALTH_PORT to a port, 9100 for instance")
    hosts = [_shown(one.health_host) for one in processes]
    targets = {
        "targets": [f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)],
        "labels": {"role": role},
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}")  # Prometheus reads whole files only
    is_taken = f"{path} is the list of another `cqrs worker`: name another file with --targets"
    with ExitStack() as lock:
        try:
            lock.enter_context(alone(path.with_name(f".{path.name}.lock"), is_taken))
            temporary.write_text(json.dumps([targets]))
            temporary.replace(path)
        except OSError as error:
            raise Fatal(f"{path} cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def read_targets(path: Path) -> tuple[list[str], str]:
    """Return the targets in such a list, as host:port; or none, and why there are none."""
    try:
        groups = json.loads(path.read_text())
        return [str(target) for group in groups for target in group["targets"]], ""
    except FileNotFoundError:
        return [], "there is no such list: its `cqrs worker` does not run"
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError):
        return [], "is not a list of targets"


def _shown(host: str) -> str:
    """Return where others find what listens at this address; for all of them: this host's name."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
