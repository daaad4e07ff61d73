"""What `cqrs doctor` finds on a host: its disk, its certificates, and its workers."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.doctor import ask_host
from deploy.doctor.ask_host import ask_worker, certificates_in_files, disk_of, tls_servers
from deploy.doctor.facts import Certificate, NotKnown, WorkerPartition, WorkerState
from deploy.top.overview import ParkedCommands
from streams.settings import Settings
from tests.unit.deploy.doctor_facts import SETTINGS, WELL, findings


def test_the_state_folder_of_another_host(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"state_dir": tmp_path / "away"})
    assert disk_of(settings.state_dir) is None
    assert disk_of(None) is None
    found = findings(replace(WELL, settings=settings, state=None))
    assert [one.line for one in found if one.status == "skipped"] == [
        f"{tmp_path / 'away'} is not on this host"
    ]
    disk = disk_of(tmp_path)
    assert disk is not None
    assert disk.size_bytes >= disk.free_bytes > 0
    assert disk.is_writable


@pytest.mark.parametrize(
    ("settings", "servers"),
    [
        ({}, []),
        (
            {"kafka_security": "ssl", "bootstrap_servers": "a:1,[::1]:2"},
            ["a:1", "[::1]:2"],
        ),
        ({"elasticsearch_url": "https://es:9200"}, ["es:9200"]),
    ],
)
def test_the_servers_with_certificates(settings: dict[str, Any], servers: list[str]) -> None:
    assert list(tls_servers(Settings(**settings))) == servers


def test_certificates_in_files(tmp_path: Path, certificate: Callable[[Path], None]) -> None:
    good, none = tmp_path / "good.pem", tmp_path / "none.pem"
    certificate(good)
    none.write_text("nothing")
    settings = Settings(
        kafka_security="ssl",
        kafka_ca_file=good,
        kafka_cert_file=none,
        elasticsearch_url="https://es:9200",
        elasticsearch_ca_file=tmp_path / "missing.pem",
    )
    found = dict(certificates_in_files(settings))
    assert isinstance(found[str(good)], Certificate)
    assert found[str(none)] == NotKnown("contains no certificate in PEM", "refused")
    assert found[str(tmp_path / "missing.pem")] == NotKnown(
        "cannot be read: No such file or directory", "refused"
    )


@pytest.fixture
def certificate() -> Callable[[Path], None]:
    import trustme

    return lambda path: trustme.CA().cert_pem.write_to_path(str(path))


@asynccontextmanager
async def serving(body: str, metrics: str = "") -> AsyncIterator[str]:
    """A web server with this answer of `/ready`, and these metrics; its address."""

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json", status=503)

    async def expose(_: web.Request) -> web.Response:
        return web.Response(text=metrics)

    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", expose)
    server = TestServer(app)
    async with server:
        yield f"{server.host}:{server.port}"


async def test_what_a_worker_says() -> None:
    parked = {"topic": "t", "partition": 1, "state": "parked", "parked": "expired"}
    metrics = """
cqrs_parked_aggregates{topic="t",partition="1"} 2
cqrs_parked_commands{topic="t",partition="1"} 5
"""
    answer = json.dumps({"ok": False, "partitions": [parked]})
    async with serving(answer, metrics) as address:
        assert await ask_worker(address) == WorkerState(
            [WorkerPartition("t[1]", "parked", "expired")], ParkedCommands(2, 5, None)
        )


async def test_what_is_no_worker() -> None:
    async with serving("[]") as address:
        found = await ask_worker(address)
    assert found == NotKnown("a worker of this project does not answer there: something else does")


async def test_a_worker_that_is_not_there_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_host, "_WORKER_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        hanging = await ask_worker(address)
    gone = await ask_worker(address)
    assert isinstance(hanging, NotKnown)
    assert "its event loop is blocked; kill it" in hanging.why
    assert isinstance(gone, NotKnown)
    assert gone.why.startswith("nobody answers: is its process there?")
