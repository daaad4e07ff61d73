"""A worker that cannot start says why in one line and ends with code 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.embedded.ports import choose_ports
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import WorkerProcess, new_settings
from deploy.supervisor import ROLES, Role
from streams.settings import Settings
from tests.conftest import Deploy


def last_line_of(role: Role, settings: Settings, folder: Path) -> str:
    """The last line of a worker that has to end with code 1."""
    with WorkerProcess(role, settings, folder) as worker:
        assert worker.wait(timeout=60) == 1
        assert "Traceback" not in worker.log_text
        return worker.log_text.splitlines()[-1]


@pytest.mark.parametrize("role", ROLES)
def test_without_topics(stack: EmbeddedStack, tmp_path: Path, role: Role) -> None:
    settings = new_settings(stack)
    line = last_line_of(role, settings, tmp_path)
    assert line.startswith(f"error: missing topics: {settings.namespace}users.")
    assert line.endswith("create them with `cqrs topics create`")


def test_with_another_number_of_partitions(deploy: Deploy, tmp_path: Path) -> None:
    settings = deploy(partitions=2).settings.model_copy(update={"partitions": 3})
    line = last_line_of("commands", settings, tmp_path)
    assert "has 2 partitions, CQRS_PARTITIONS says 3" in line
    assert "set CQRS_PARTITIONS to what it was created with" in line


@pytest.mark.parametrize("role", ROLES)
def test_without_kafka(stack: EmbeddedStack, tmp_path: Path, role: Role) -> None:
    address = choose_ports(None, None, None).bootstrap_servers
    settings = new_settings(stack, bootstrap_servers=address)
    line = last_line_of(role, settings, tmp_path)
    assert line.startswith(f"error: Kafka does not answer at {address}")
