"""Hosts on this machine, each with a network of its own: namespaces that a switch connects.

    with open_hosts("kafka-1", "worker-1", "me") as hosts, hosts["me"].entered():
        cluster = ...EmbeddedCluster.temporary(nodes=1, places=[hosts["kafka-1"].place])
        deployed.start("commands", hosts["worker-1"].launch)
        hosts["worker-1"].unplug()       # what is sent from there and to there is lost

No address is outside of the namespaces, and nothing leads out of them. They have no names: each is
there as long as this process or one that runs in it. So nothing is left behind, also after kill -9.

It takes root, or the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN, and Debian's `iproute2`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.embedded.cluster import Place
from deploy.supervisor import command_line
from models.errors import Fatal

_TOOLS = ("ip", "nsenter")
_CLONE_NEWNET = 0x40000000  # unshare(2)
_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_BRIDGE = "switch"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Host:
    """A host, and the cable from it to the switch."""

    name: str
    address: str
    _namespace: int
    _switch: int
    _socket: str
    """The end of the cable at the switch."""

    @property
    def place(self) -> Place:
        """Where a node of a cluster runs that runs here."""
        return Place(self.address, _inside(self._namespace))

    def launch(self, app: str) -> Sequence[str]:
        """Return the command that starts a worker here (a `Launcher`)."""
        return [*_inside(self._namespace), *command_line(app)]

    def unplug(self) -> None:
        """Take the cable out of the switch: what is sent to this host or from it is lost."""
        _ip(self._switch, f"link set {self._socket} nomaster")

    def plug_in(self) -> None:
        """Put the cable into the switch again."""
        _ip(self._switch, f"link set {self._socket} master {_BRIDGE}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put this thread on the host during the block, with all threads and processes it starts.

        Sockets that are open stay where they are.
        """
        before = os.open(_OWN_NAMESPACE, os.O_RDONLY)
        try:
            _set_namespace(self._namespace)
            yield
        finally:
            _set_namespace(before)
            os.close(before)


@contextmanager
def open_hosts(*names: str) -> Iterator[Mapping[str, Host]]:
    """Make hosts that reach each other, and nothing else; they are gone after the block.

    Raises:
        Fatal: this machine does not permit it, or lacks the tools.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise Fatal(f"hosts are not tried without {', '.join(missing)}: apt-get install iproute2")
    namespaces: list[int] = []
    try:
        switch = _new_namespace()
        namespaces.append(switch)
        _ip(switch, f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} up")
        hosts = {}
        for number, name in enumerate(names, 1):
            namespace = _new_namespace()
            namespaces.append(namespace)
            host = Host(name, f"10.99.0.{number}", namespace, switch, f"port{number}")
            _ip(
                switch,
                f"link add {host._socket} type veth peer name eth0 netns {_path(namespace)}",
                f"link set {host._socket} master {_BRIDGE} up",
            )
            _ip(
                namespace,
                "link set lo up",
                f"addr add {host.address}/24 dev eth0",
                "link set eth0 up",
            )
            hosts[name] = host
        yield hosts
    finally:
        for namespace in namespaces:
            os.close(namespace)


def _new_namespace() -> int:
    """Return a file that is open and keeps a new network namespace there.

    Raises:
        Fatal: this machine does not permit it.
    """

    def make() -> int:
        if _libc.unshare(_CLONE_NEWNET):
            raise Fatal(
                "hosts are not tried: this machine permits no network namespace "
                f"({os.strerror(ctypes.get_errno())}); it takes root, or CAP_SYS_ADMIN"
            )
        return os.open(_OWN_NAMESPACE, os.O_RDONLY)

    with ThreadPoolExecutor(1) as thread_of_its_own:
        return thread_of_its_own.submit(make).result()


def _set_namespace(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise Fatal(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def _path(namespace: int) -> str:
    return f"/proc/{os.getpid()}/fd/{namespace}"


def _inside(namespace: int) -> Sequence[str]:
    """Return a command that runs another one in a namespace, in its own process."""
    return ["nsenter", f"--net={_path(namespace)}", "--"]


def _ip(namespace: int, *commands: str) -> None:
    done = subprocess.run(
        [*_inside(namespace), "ip", "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Fatal(f"hosts are not tried: {done.stderr.strip().splitlines()[0]}")
