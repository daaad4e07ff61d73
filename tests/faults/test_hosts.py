"""The hosts of the fault suite: they reach each other, their cables do what cables do, all go."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from deploy.waiting import wait_until
from streams.kafka.connections import create_connection
from tests.harness.command_line import ROOT
from tests.harness.fake_broker import fake_broker
from tests.harness.hosts import Host, open_hosts

pytestmark = pytest.mark.all_faults

# Makes hosts, starts a process on one, says in which namespace that is, and waits to be killed.
_MAKER = """
import ctypes, signal, subprocess, sys
from pathlib import Path
from tests.harness.hosts import open_hosts

with open_hosts("one", "other") as hosts, hosts["one"].entered():
    die = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    sleeping = subprocess.Popen(["sleep", "600"], preexec_fn=die)
    print(Path(f"/proc/{sleeping.pid}/ns/net").readlink(), flush=True)
    signal.pause()
"""


def listening(host: Host) -> socket.socket:
    with host.entered():
        return socket.create_server((host.address, 0))


def connects(host: Host, server: socket.socket) -> bool:
    """Whether a client on a host is connected to a server."""
    with host.entered():
        client = socket.socket()
        client.settimeout(60)
        refused = client.connect_ex(server.getsockname())
    client.close()
    if refused:
        assert refused == errno.EHOSTUNREACH
        return False
    accepted, (address, _) = server.accept()
    accepted.close()
    return bool(address == host.address)


def test_a_host_reaches_others_unless_a_cable_is_out() -> None:
    names = ("one", "other", "third", "fourth")
    with open_hosts(*names) as hosts, listening(hosts["one"]) as server:
        assert connects(hosts["other"], server)
        hosts["third"].unplug()
        assert not connects(hosts["third"], server)
        hosts["third"].plug_in()
        assert connects(hosts["third"], server)
        hosts["one"].unplug()
        assert not connects(hosts["fourth"], server)


def test_they_reach_nothing_else_and_this_process_is_where_it_was() -> None:
    before, devices = network_of(os.getpid()), set(socket.if_nameindex())
    with socket.create_server(("127.0.0.1", 0)) as server, open_hosts("me") as hosts:
        with hosts["me"].entered(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname(), timeout=30)
        assert network_of(os.getpid()) == before
        assert set(socket.if_nameindex()) == devices


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_client_of_kafka_notices_that_a_host_is_gone(is_asked: bool) -> None:
    """Nothing says so: whatever is sent there is lost. It waits for no request's time to end."""
    with open_hosts("broker", "client") as hosts, listening(hosts["broker"]) as server:
        async with fake_broker(1, server) as port:
            with hosts["client"].entered():
                connection = await create_connection(
                    hosts["broker"].address, port, request_timeout_ms=3_600_000
                )
            hosts["broker"].unplug()
            with closing(connection):
                if is_asked:
                    with pytest.raises(KafkaConnectionError):
                        await connection.send(MetadataRequest([]))
                else:
                    await wait_until(lambda: not connection.connected(), timeout=120)
            hosts["broker"].plug_in()


async def test_nothing_is_left_behind_by_who_is_killed() -> None:
    devices = set(socket.if_nameindex())
    maker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MAKER), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert maker.stdout is not None
    network = (await maker.stdout.readline()).decode().strip()
    assert network in networks()
    maker.kill()
    await maker.wait()
    await wait_until(lambda: network not in networks())
    assert set(socket.if_nameindex()) == devices


def network_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def networks() -> set[str]:
    """The networks that any process is in."""
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            found.add(str((process / "ns" / "net").readlink()))
    return found
