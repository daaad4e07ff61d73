"""Load for the fault tests: seeded commands on the topic, and counting what came of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from agents.user_verify import verify_users
from deploy.faults.deployment import Deployment
from deploy.faults.waiting import wait_until
from streams.audit.report import Report
from streams.kafka.clients import new_consumer
from streams.kafka.partitioner import partition_of


async def send(
    producer: AIOKafkaProducer, deployed: Deployment, commands: Iterable[dict[str, Any]]
) -> int:
    """Put wire commands on the command topic; returns how many, once all are acknowledged."""
    sent = []
    for command in commands:
        key = command["aggregateId"].encode()
        partition = partition_of(key, deployed.settings.partitions)
        value = json.dumps(command).encode()
        sent.append(await producer.send(deployed.names.commands, value, key, partition=partition))
    await asyncio.gather(*sent)
    return len(sent)


class OutcomeCounter:
    """Counts the committed outcomes of a deployment as they come."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.total = 0
        self.by_partition: dict[int, int] = {}

    async def count(self) -> int:
        """How many there are by now."""
        for tp, records in (await self._consumer.getmany(timeout_ms=100)).items():
            self.total += len(records)
            self.by_partition[tp.partition] = self.by_partition.get(tp.partition, 0) + len(records)
        return self.total

    async def reach(self, total: int, timeout: float = 60) -> None:
        """Wait until there are at least so many."""

        async def reached() -> bool:
            return await self.count() >= total

        await wait_until(reached, timeout=timeout, what=f"{total} outcomes")


@asynccontextmanager
async def counting(deployed: Deployment) -> AsyncIterator[OutcomeCounter]:
    """Count a deployment's outcomes from the first one."""
    consumer = new_consumer(deployed.settings)
    await consumer.start()
    try:
        consumer.assign(
            [
                TopicPartition(deployed.names.outcomes, partition)
                for partition in range(deployed.settings.partitions)
            ]
        )
        yield OutcomeCounter(consumer)
    finally:
        await consumer.stop()


async def check(deployed: Deployment) -> Report:
    """Let the checker find every invariant kept."""
    report = await verify_users(deployed.settings, timeout=60)
    assert report.first_violation is None
    return report
