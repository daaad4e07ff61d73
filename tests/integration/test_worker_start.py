"""A worker that cannot start says why in one line and ends with code 1."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from agents.users import COMMAND_WORKER
from deploy.embedded.ports import choose_ports
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import WorkerProcess, new_settings
from deploy.samples.commands import generate
from deploy.supervisor import ROLES, Role, command_line, running
from streams.aggregate import TopicNames
from streams.kafka.clients import connection_options, new_producer
from streams.settings import Settings
from tests.conftest import Deploy
from tests.harness.command_line import add_foreign_packages
from tests.harness.traffic import counting, send


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


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_imported_from_the_current_folder(
    stack: EmbeddedStack, tmp_path: Path, role: Role
) -> None:
    add_foreign_packages(tmp_path)
    log = tmp_path / "worker.log"
    environment = child_environment(new_settings(stack))
    with running(command_line(ROLES[role]), environment, log, cwd=tmp_path) as worker:
        assert worker.wait(timeout=60) == 1
    assert log.read_text().splitlines()[-1].startswith("error: missing topics: ")


async def test_faust_starts_a_worker_too(deploy: Deploy, tmp_path: Path) -> None:
    """With the command that docs/workers.md shows."""
    deployed = deploy()
    faust = [sys.executable, "-m", "faust", "-A", "agents.user_commands"]
    command = [*faust, "worker", "--without-web"]
    environment = child_environment(deployed.settings)
    with running(command, environment, tmp_path / "worker.log", cwd=tmp_path) as worker:
        async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
            sent = await send(producer, deployed, generate(10))
            await outcomes.reach(sent)
        worker.terminate()
        assert worker.wait(timeout=10) == os.EX_OK
    said = (tmp_path / "worker.log").read_text().splitlines()
    assert [line for line in said if " streams." not in line] == []  # no banner, no escapes
    assert any(" INFO streams.worker.partitions: ready after " in line for line in said)


async def test_in_a_group_of_another_program(deploy: Deploy, tmp_path: Path) -> None:
    settings = deploy().settings
    group = f"{settings.namespace}{COMMAND_WORKER}"
    async with AIOKafkaConsumer(
        TopicNames.of(settings, "users").commands,
        **connection_options(settings),
        group_id=group,
    ):
        with WorkerProcess("commands", settings, tmp_path) as worker:
            assert await asyncio.to_thread(worker.wait, timeout=60) == 1
            line = worker.log_text.splitlines()[-1]
    assert line.startswith("error: another program, or an incompatible version of this one, is")
    assert f"--members --group {group}`" in line


def test_with_transactions_longer_than_the_brokers_allow(deploy: Deploy, tmp_path: Path) -> None:
    settings = deploy().settings.model_copy(update={"transaction_timeout": 100_000.0})
    line = last_line_of("commands", settings, tmp_path)
    assert line.startswith("error: the brokers do not allow transactions of that length: set CQRS_")
