"""Damage to the log of one partition: what it may not do to the commands there, and elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from agents.users import USERS
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.audit.verify import verify
from streams.kafka.clients import admin_client, new_producer
from tests.conftest import Deploy
from tests.harness.traffic import counting, send


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
                    or worker.log_text.count("going on at position") == 2
                )
            )
        await send(producer, deployed, commands)
        await outcomes.reach(25)
    report = await verify(deployed.settings, USERS)
    assert (report.first_violation, report.commands) == (None, 25)


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
            found = await admin.list_consumer_group_offsets(group, partitions=[partition])
            return bool(found[partition].offset == 10 + 11 + 1)

        await wait_until(is_passed)
        worker.terminate()
        await admin.delete_records({partition: RecordsToDelete(before_offset=22)})
        worker.start()
        await send(producer, deployed, generate(5, seed=3))
        await outcomes.reach(15)
