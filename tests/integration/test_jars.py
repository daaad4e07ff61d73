"""Downloads against a real HTTP server that serves a Maven repository of two tiny jars."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

from deploy.embedded import jars, lockfile, maven
from deploy.embedded.jars import ensure_jars, jar_folder
from deploy.embedded.start_progress import Progress
from models.errors import Fatal

JARS = {"kafka": b"the broker" * 1000, "elasticsearch": b"the search engine" * 1000}


class Repository:
    """A Maven repository, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_request(self, *_: object) -> None:
                asked.append(self.path)

            def log_error(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def path(self, server: str) -> Path:
        return self.folder / "org" / "example" / server / "1.0" / f"{server}-1.0.jar"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository as the user's own jgo configuration names it; the public one is out of reach."""
    repository = Repository(tmp_path / "repository")
    lock = tmp_path / "jars.lock"
    for server, content in JARS.items():
        path = repository.path(server)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        with lock.open("a") as lines:
            lines.write(f"{server} lib org.example:{server}:1.0 {digest} {len(content)}\n")
    configuration = tmp_path / "jgo.conf"
    address = f"http://127.0.0.1:{repository.server.server_port}"
    configuration.write_text(f"[repositories]\nlocal = {address}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("CQRS_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lockfile, "LOCK", lock)
    thread = Thread(target=repository.server.serve_forever)
    thread.start()
    yield repository
    repository.server.shutdown()
    repository.server.server_close()
    thread.join()


def installed(server: str) -> Path:
    return jar_folder(server) / "lib" / f"{server}-1.0.jar"


def test_jars_are_downloaded_once(repository: Repository) -> None:
    ensure_jars(Progress())
    for server, content in JARS.items():
        assert installed(server).read_bytes() == content
    repository.asked.clear()
    ensure_jars(Progress())
    assert not repository.asked


def test_a_damaged_jar_is_downloaded_again(repository: Repository) -> None:
    ensure_jars(Progress())
    content = JARS["kafka"]
    installed("kafka").write_bytes(content[:-1] + b"?")
    ensure_jars(Progress())
    assert installed("kafka").read_bytes() == content


def test_another_jar_than_the_pinned_one_is_refused(repository: Repository) -> None:
    forged = JARS["kafka"][::-1]
    repository.path("kafka").write_bytes(forged)
    with pytest.raises(Fatal) as refused:
        ensure_jars(Progress())
    line = str(refused.value)
    assert line.startswith("kafka-1.0.jar is not the pinned jar")
    assert hashlib.sha256(forged).hexdigest() in line
    assert hashlib.sha256(JARS["kafka"]).hexdigest() in line
    assert "\n" not in line
    assert not installed("kafka").exists()


def test_offline_without_the_jars_is_one_line(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(Fatal) as failed:
        ensure_jars(Progress())
    assert str(failed.value).startswith("cannot download ")
    assert str(failed.value).endswith(
        ": no connection to the Maven repository, which only the first start needs"
    )


def test_an_authority_of_the_network_is_said() -> None:
    error = requests.exceptions.SSLError("certificate verify failed: self-signed certificate")
    assert "set REQUESTS_CA_BUNDLE" in maven._reason(error)


def test_several_starts_at_once_download_each_jar_once(repository: Repository) -> None:
    with ThreadPoolExecutor(4) as starts:
        list(starts.map(lambda _: ensure_jars(Progress()), range(4)))
    downloads = [path for path in repository.asked if path.endswith(".jar")]
    assert len(downloads) == len(set(downloads)) == len(JARS)


def test_the_rest_of_a_killed_download_is_removed(repository: Repository) -> None:
    left_over = jars.cache_home() / "jars" / f"{maven.SCRATCH_PREFIX}x"
    left_over.mkdir(parents=True)
    ensure_jars(Progress())
    assert not left_over.exists()
