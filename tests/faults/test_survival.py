"""Commands are decided exactly once in their effect, whatever happens to the workers.

After each fault the workers have to go on by themselves, and the checker has to find every
invariant kept: it computes the truth from the topics and the index alone.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from itertools import islice

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.faults.deployment import Deployment
from deploy.faults.waiting import wait_until
from deploy.generate import generate, malformed
from streams.kafka import admin_client, new_producer
from streams.settings import Settings
from tests.conftest import Deploy
from tests.faults.load import check, counting, send


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


async def test_kill_9_amid_work(deploy: Deploy, producers: list[AIOKafkaProducer]) -> None:
    """Five kill -9 of random workers amid 20,000 commands with repeats and rejections."""
    choice = random.Random(7)
    deployed = deploy("commands", "commands", "views", partitions=4)
    victims = deployed.workers
    commands = generate(20_000, seed=7, rejected=0.05, duplicates=0.1)
    producer = await start_producer(producers, deployed.settings)
    async with counting(deployed) as outcomes:
        sent = 0
        for _ in range(5):
            sent += await send(producer, deployed, islice(commands, 4000))
            await outcomes.reach(sent - 3000)
            victim = choice.choice(victims)
            victim.kill()
            victim.start()
        await outcomes.reach(sent)
        assert sent == 20_000
        assert outcomes.total == sent
    report = await check(deployed)
    assert report.commands == sent
    assert all(worker.is_running for worker in deployed.workers)


async def test_a_zombie_writes_nothing_and_comes_back(
    deploy: Deploy, producers: list[AIOKafkaProducer]
) -> None:
    """A worker is stopped amid work for longer than its session, then goes on."""
    deployed = deploy("commands", "commands", "views", partitions=4)
    zombie, other = deployed.workers[:2]
    commands = generate(12_000, seed=11)
    producer = await start_producer(producers, deployed.settings)
    async with counting(deployed) as outcomes:
        # Both have partitions, and work to do, when one of them is stopped.
        await wait_until(
            lambda: "going on at" in zombie.log_text and "going on at" in other.log_text
        )
        sent = await send(producer, deployed, islice(commands, 8000))
        await outcomes.reach(1)
        zombie.suspend()
        await outcomes.reach(sent)  # the other one takes over
        zombie.resume()
        sent += await send(producer, deployed, commands)
        await outcomes.reach(sent)
        assert outcomes.total == sent
        # It takes part again: with the other one gone, it does all the work.
        other.terminate()
        sent += await send(producer, deployed, generate(1000, seed=12))
        await outcomes.reach(sent)
    await check(deployed)


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


async def test_poison_amid_work(deploy: Deploy, producers: list[AIOKafkaProducer]) -> None:
    """Records that are no commands end as dead letters, and the others do not notice."""
    deployed = deploy("commands", "views", partitions=2)
    producer = await start_producer(producers, deployed.settings)
    poison = list(malformed(50, seed=5))
    async with counting(deployed) as outcomes:
        sent = 0
        commands = generate(2000, seed=5)
        for key, value in poison:
            await producer.send_and_wait(deployed.names.commands, value, key)
            sent += 1 + await send(producer, deployed, islice(commands, 40))
        await outcomes.reach(sent)
    report = await check(deployed)
    assert report.dead == len(poison)


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
