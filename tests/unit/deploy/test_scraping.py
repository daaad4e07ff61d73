"""Ports of several processes, and the list of them for Prometheus."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli import worker as command
from deploy.scraping import listed_targets, settings_of_each
from deploy.supervisor import Child
from models.errors import Fatal
from streams.settings import Settings


@pytest.mark.parametrize(
    ("first", "ports"), [(9100, [9100, 9101, 9102]), (0, [0, 0, 0]), (None, [None] * 3)]
)
def test_each_process_has_its_own_port(first: int | None, ports: list[int | None]) -> None:
    each = settings_of_each(Settings(health_port=first, partitions=7), 3)
    assert [one.health_port for one in each] == ports
    assert {one.partitions for one in each} == {7}


def test_too_few_ports_are_one_line() -> None:
    assert len(settings_of_each(Settings(health_port=65534), 2)) == 2
    with pytest.raises(Fatal, match="CQRS_HEALTH_PORT=65534 leaves no ports for 3 processes"):
        settings_of_each(Settings(health_port=65534), 3)


def test_the_list_is_there_while_they_run(tmp_path: Path) -> None:
    path = tmp_path / "commands.json"
    with listed_targets(path, "commands", settings_of_each(Settings(health_port=9100), 2)):
        assert json.loads(path.read_text()) == [
            {"targets": ["127.0.0.1:9100", "127.0.0.1:9101"], "labels": {"role": "commands"}}
        ]
    assert [one.name for one in tmp_path.iterdir()] == [".commands.json.lock"]


def test_a_second_one_does_not_take_the_list_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "commands.json"
    first, second = (settings_of_each(Settings(health_port=port), 1) for port in (9100, 9200))
    with listed_targets(path, "commands", first):
        with (
            pytest.raises(Fatal, match=r"commands.json is the list of another `cqrs worker`"),
            listed_targets(path, "commands", second),
        ):
            pass
        assert "127.0.0.1:9100" in path.read_text()
    with listed_targets(path, "commands", second):
        assert "127.0.0.1:9200" in path.read_text()


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("10.0.0.5", "10.0.0.5:9100"),
        ("::1", "[::1]:9100"),
        ("0.0.0.0", f"{socket.gethostname()}:9100"),
        ("::", f"{socket.gethostname()}:9100"),
    ],
)
def test_the_list_names_the_address_that_they_listen_at(
    host: str, target: str, tmp_path: Path
) -> None:
    path = tmp_path / "commands.json"
    processes = settings_of_each(Settings(health_port=9100, health_host=host), 1)
    with listed_targets(path, "commands", processes):
        assert json.loads(path.read_text())[0]["targets"] == [target]


@pytest.mark.parametrize("port", [None, 0])
def test_without_fixed_ports_there_is_nothing_to_list(port: int | None, tmp_path: Path) -> None:
    processes = settings_of_each(Settings(health_port=port), 1)
    with (
        pytest.raises(Fatal, match="nothing to scrape: set CQRS_HEALTH_PORT"),
        listed_targets(tmp_path / "commands.json", "commands", processes),
    ):
        pass


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    processes = settings_of_each(Settings(health_port=9100), 1)
    with (
        pytest.raises(Fatal, match=r"x.json cannot be written: No such file or directory"),
        listed_targets(tmp_path / "missing" / "x.json", "commands", processes),
    ):
        pass


def test_the_supervisor_is_given_an_environment_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "commands.json"
    seen: list[str | None] = []

    class FakeSupervisor:
        def __init__(self, children: Sequence[Child], _: object) -> None:
            seen.extend(child.environment.get("CQRS_HEALTH_PORT") for child in children)

        async def run(self) -> int:
            assert path.exists()
            return 0

    async def check(*_: object) -> None:
        """There are no servers here."""

    monkeypatch.setattr(command, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(command, "_check", check)
    monkeypatch.setenv("CQRS_HEALTH_PORT", "9100")
    arguments = ["commands", "--processes", "2", "--targets", str(path)]
    assert CliRunner().invoke(command.worker, arguments).exit_code == 0
    assert seen == ["9100", "9101"]
    assert not path.exists()
