"""What lies between commands on their topic, or is missing there, does no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import islice

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from streams.kafka.clients import admin_client, new_producer
from streams.settings import Settings
from tests.conftest import Deploy
from tests.harness.traffic import check, counting, send


@pytest.fixture
async def producers() -> AsyncIterator[list[AIOKafkaProducer]]:
    """Producers that a test has started; stopped at its end."""
    started: list[AIOKafkaProducer] = []
    yield started
    for producer in started:
        await producer.stop()


async def start_producer(
    producers: list[AIOKafkaProducer], settings: Settings, transactional_id: str | None = None
) -> AIOKafkaProducer:
    producer = new_producer(settings, linger_ms=5, transactional_id=transactional_id)
    await producer.start()
    producers.append(producer)
    return producer


async def test_commands_of_a_transactional_producer(
    deploy: Deploy, producers: list[AIOKafkaProducer]
) -> None:
    """Its markers make holes between offsets, its aborted commands do not exist."""
    deployed = deploy("commands", "views", partitions=2)
    worker = deployed.workers[0]
    producer = await start_producer(producers, deployed.settings, deployed.settings.namespace)
    commands = generate(2000, seed=3)
    async with counting(deployed) as outcomes:
        sent = 0
        for round_ in range(20):
            await producer.begin_transaction()
            sent += await send(producer, deployed, islice(commands, 100))
            await producer.commit_transaction()
            await producer.begin_transaction()
            await send(producer, deployed, generate(10, seed=100 + round_))
            await producer.abort_transaction()
            if round_ == 9:
                await outcomes.reach(sent // 2)
                worker.kill()
                worker.start()
        await outcomes.reach(sent)
        assert outcomes.total == sent == 2000
    report = await check(deployed)
    assert report.commands == sent


async def delete_commands(deployed: Deployment, partition: int, before: int) -> None:
    """DeleteRecords, as retention does it."""
    tp = TopicPartition(deployed.names.commands, partition)
    async with admin_client(deployed.settings) as admin:
        await admin.delete_records({tp: RecordsToDelete(before_offset=before)})


async def test_deleted_commands_that_were_decided(
    deploy: Deploy, producers: list[AIOKafkaProducer]
) -> None:
    """Retention behind the position is nothing to a worker that starts again."""
    deployed = deploy("commands", "views", partitions=1)
    worker = deployed.workers[0]
    producer = await start_producer(producers, deployed.settings)
    commands = generate(600, seed=2)
    async with counting(deployed) as outcomes:
        await send(producer, deployed, islice(commands, 400))
        await outcomes.reach(400)
        worker.kill()
        await delete_commands(deployed, 0, before=300)
        worker.start()
        await send(producer, deployed, commands)
        await outcomes.reach(600)
    report = await check(deployed)
    assert report.commands == 300


async def test_deleted_commands_that_were_not_decided(
    deploy: Deploy, producers: list[AIOKafkaProducer]
) -> None:
    """Commands that expired undecided stop the worker, with the number and what to do."""
    deployed = deploy("commands", partitions=1)
    worker = deployed.workers[0]
    producer = await start_producer(producers, deployed.settings)
    commands = generate(600, seed=2)
    async with counting(deployed) as outcomes:
        await send(producer, deployed, islice(commands, 200))
        await outcomes.reach(200)
        worker.kill()
        await send(producer, deployed, commands)
        await delete_commands(deployed, 0, before=450)
        worker.start()
        assert worker.wait() == 1
        line = worker.log_text.splitlines()[-1]
        assert "250 commands expired before they were decided" in line
        assert "cqrs topics skip-expired 0" in line
        assert await outcomes.count() == 200
