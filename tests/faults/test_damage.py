"""Damage to one partition or one user: what it may not do to the commands there, and elsewhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from agents.client import open_commands
from agents.users import USERS
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.commands import DeactivateUser
from models.messages import Command, to_wire
from models.outcomes import Accepted, DeadLettered, Outcome
from streams.audit.verify import verify
from streams.encryption.keys import new_master_key
from streams.kafka.clients import admin_client, new_producer
from streams.kafka.groups import committed_positions
from streams.kafka.partitioner import partition_of
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.traffic import counting, send
from tests.harness.users import register


@asynccontextmanager
async def transaction_of_somebody(deployed: Deployment) -> AsyncIterator[AIOKafkaProducer]:
    """A transaction of another program, which is aborted at the end of the block."""
    somebody = f"{deployed.settings.namespace}somebody"
    async with new_producer(deployed.settings, transactional_id=somebody) as producer:
        await producer.begin_transaction()
        try:
            yield producer
        finally:
            await producer.abort_transaction()


async def test_an_open_transaction_on_the_changelog_hides_no_state(deploy: Deploy) -> None:
    """What was committed after its first record is not seen before it ends: the worker waits."""
    deployed = deploy("commands", partitions=1)
    worker, commands = deployed.workers[0], generate(25)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await send(producer, deployed, (next(commands) for _ in range(10)))
        await outcomes.reach(10)
        async with transaction_of_somebody(deployed) as somebody:
            await somebody.send_and_wait(deployed.names.changelog, b"x", b"nobody", partition=0)
            await send(producer, deployed, (next(commands) for _ in range(10)))
            await outcomes.reach(20)
            worker.terminate()
            worker.start()
            await wait_until(
                lambda: (
                    "a transaction is open" in worker.log_text
                    or worker.log_text.count("continuing at position") == 2
                )
            )
        await send(producer, deployed, commands)
        await outcomes.reach(25)
    report = await verify(deployed.settings, USERS)
    assert (report.first_violation, report.commands) == (None, 25)


async def test_an_open_transaction_on_one_partition_of_the_keys_stops_no_start(
    deploy: Deploy,
) -> None:
    """Whoever needs that partition waits, and the other ones are decided."""
    deployed = deploy(partitions=2, encrypt_personal_data=True, master_key=new_master_key())
    users = {partition_of(user.encode(), 2): user for user in ("anna", "ben", "cleo", "dora")}
    async with transaction_of_somebody(deployed) as somebody:
        await somebody.send_and_wait(deployed.names.keys, b"x", b"nobody", partition=0)
        deployed.start("commands")
        async with open_commands(deployed.settings) as commands:
            assert isinstance(await commands.dispatch(register(users[1])), Accepted)
    async with open_commands(deployed.settings) as commands:
        assert isinstance(await commands.dispatch(register(users[0])), Accepted)


async def test_aborted_commands_at_the_end_do_not_expire(deploy: Deploy) -> None:
    """Nor does the marker after them: there is nothing to be decided in what retention removes."""
    deployed = deploy("commands", partitions=1)
    worker, partition = deployed.workers[0], TopicPartition(deployed.names.commands, 0)
    group = f"{deployed.settings.namespace}users-commands"
    async with (
        counting(deployed) as outcomes,
        new_producer(deployed.settings) as producer,
        admin_client(deployed.settings) as admin,
    ):
        await send(producer, deployed, generate(10))
        await outcomes.reach(10)
        async with transaction_of_somebody(deployed) as somebody:
            await send(somebody, deployed, generate(11, seed=2))

        async def is_passed() -> bool:
            found = await committed_positions(admin, group, [partition])
            return found.get(partition) == 10 + 11 + 1

        await wait_until(is_passed)
        worker.terminate()
        await admin.delete_records({partition: RecordsToDelete(before_offset=22)})
        worker.start()
        await send(producer, deployed, generate(5, seed=3))
        await outcomes.reach(15)


async def dispatch(deployed: Deployment, *commands: Command) -> list[Outcome]:
    """Return the outcomes of these commands, each sent after the outcome of the one before."""
    async with open_commands(deployed.settings) as bus:
        return [await bus.dispatch(command) for command in commands]


async def test_a_state_that_cannot_be_read_concerns_its_user_alone(deploy: Deploy) -> None:
    deployed = deploy("commands", partitions=1)
    worker = deployed.workers[0]
    await dispatch(deployed, register("anna"), register("ben"))
    worker.terminate()
    async with new_producer(deployed.settings) as producer:
        await producer.send_and_wait(deployed.names.changelog, b"garbage", b"anna", partition=0)
    worker.start()
    anna, carl, ben = await dispatch(
        deployed,
        DeactivateUser(aggregate_id="anna"),
        register("carl"),
        DeactivateUser(aggregate_id="ben"),
    )
    assert isinstance(anna, DeadLettered)
    assert anna.code == "unreadable-state"
    assert isinstance(carl, Accepted)
    assert isinstance(ben, Accepted)
    report = await verify(deployed.settings, USERS)
    assert "anna: its state cannot be read" in str(report.first_violation)
    assert [one.violations for one in report.findings.values()].count(0) == len(report.findings) - 1
    assert worker.is_running

    done = cqrs(deployed.settings, "state", "rebuild", "0")
    assert done.returncode == 0, done.stderr
    (anna,) = await dispatch(deployed, DeactivateUser(aggregate_id="anna"))
    assert isinstance(anna, Accepted)
    assert (await verify(deployed.settings, USERS)).first_violation is None


async def health(worker: WorkerProcess) -> tuple[int, list[dict[str, Any]]]:
    """Return the HTTP status of a worker's health, and its partitions."""
    url = re.findall(r"health: (http\S+)", worker.log_text)[-1]
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, (await response.json())["partitions"]


async def test_a_partition_that_cannot_continue_stops_no_other(deploy: Deploy) -> None:
    """Its reason is in the health; a rebalance after the repair lets it continue."""
    deployed = deploy("commands", partitions=2, health_port=0)
    worker = deployed.workers[0]
    first, second = users_of_two_partitions()
    await dispatch(deployed, register(first[0]), register(second[0]))
    worker.terminate()
    async with (
        new_producer(deployed.settings) as producer,
        admin_client(deployed.settings) as admin,
    ):
        await send(producer, deployed, [to_wire(register(first[1]))])
        tp = TopicPartition(deployed.names.commands, 0)
        await admin.delete_records({tp: RecordsToDelete(before_offset=2)})
    worker.start()
    (outcome,) = await dispatch(deployed, register(second[1]))
    assert isinstance(outcome, Accepted)

    await wait_until(lambda: "[0] is parked" in worker.log_text)
    status, (parked, fine) = await health(worker)
    assert status == 503
    assert "1 commands expired before they were decided" in parked["parked"]
    assert (parked["ok"], fine["ok"], fine["parked"]) == (False, True, None)
    assert worker.is_running

    done = cqrs(deployed.settings, "topics", "skip-expired", "0", "--yes")
    assert done.returncode == 0, done.stderr
    deployed.start("commands")
    (outcome,) = await dispatch(deployed, register(first[2]))
    assert isinstance(outcome, Accepted)


def segment_of(stack: EmbeddedStack, topic: str, partition: int) -> Path:
    """The file of a short log on the broker's disk."""
    return stack.home / "data" / "kafka" / f"{topic}-{partition}" / f"{0:020}.log"


def overwrite(segment: Path, at: int, content: bytes) -> None:
    with segment.open("r+b") as file:
        file.seek(at)
        file.write(content)


def users_of_two_partitions() -> tuple[list[str], list[str]]:
    users = [f"user-{number}" for number in range(20)]
    first, second = (
        [user for user in users if partition_of(user.encode(), 2) == n] for n in (0, 1)
    )
    return first, second


# What a disk has made of a batch, from which byte on: some bits of a record have changed, so its
# checksum is wrong; zeros, in which the broker finds no batch.
DAMAGE = {"record": (70, b"\x00\xff"), "zeros": (0, bytes(61))}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_batch_that_is_damaged_on_disk_stops_one_partition(
    stack: EmbeddedStack, deploy: Deploy, damage: str
) -> None:
    """What precedes it is decided; every worker that read it ended, one after the other."""
    deployed = deploy(partitions=2)
    first, second = users_of_two_partitions()
    segment = segment_of(stack, deployed.names.commands, 0)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await send(producer, deployed, [to_wire(register(first[0]))])
        size = segment.stat().st_size
        await send(producer, deployed, [to_wire(register(first[1]))])
        whole = segment.read_bytes()
        at, bytes_ = DAMAGE[damage]
        overwrite(segment, size + at, bytes_)
        assert segment.read_bytes() != whole

        worker = deployed.start("commands")
        await wait_until(lambda: "[0] is parked" in worker.log_text)
        await send(producer, deployed, [to_wire(register(second[0]))])
        await outcomes.reach(2)
        assert f"{deployed.names.commands}[0] is damaged on its broker" in worker.log_text
        assert "from offset 1 on" in worker.log_text
        done = cqrs(deployed.settings, "verify")
        assert "[0] is damaged on its broker" in done.stderr
        assert done.returncode == 75, done.stdout + done.stderr

        overwrite(segment, 0, whole)
        deployed.start("commands")
        await outcomes.reach(3)
    assert worker.is_running
    report = await verify(deployed.settings, USERS)
    assert (report.first_violation, report.commands) == (None, 3)


async def test_a_changelog_that_is_damaged_stops_no_partition_that_begins(
    stack: EmbeddedStack, deploy: Deploy
) -> None:
    """One without any state asks the others for the number of partitions."""
    deployed = deploy("commands", partitions=2)
    worker = deployed.workers[0]
    first, second = users_of_two_partitions()
    await dispatch(deployed, register(first[0]))
    worker.terminate()
    changelog = segment_of(stack, deployed.names.changelog, 0)
    overwrite(changelog, 0, bytes(changelog.stat().st_size))
    worker.start()
    (outcome,) = await dispatch(deployed, register(second[0]))
    assert isinstance(outcome, Accepted)
    await wait_until(lambda: "commands.v1[0] is parked" in worker.log_text)
    assert f"{deployed.names.changelog}[0] is damaged on its broker" in worker.log_text
    assert worker.is_running
