"""Restore a state store from its changelog.

Faust's own recovery is not used: it swallows errors, can be skipped at random, and keeps the
records of partitions that the worker has lost.
"""

from __future__ import annotations

from typing import TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from models.errors import Fatal
from streams.kafka.log_reader import read_to
from streams.state.store import StateStore

S = TypeVar("S", bound=StateStore)


async def restore(consumer: AIOKafkaConsumer, changelog: TopicPartition, store: S) -> S:
    """Apply to a store what it lacks of its changelog, up to the current end, and return the store.

    ``consumer`` is assigned the changelog and reads committed records. To take a partition over,
    fence earlier owners first: an open transaction of theirs hides what follows it.

    Raises:
        Fatal: a record has no key, so something else writes to the changelog.
        Transient: the end was not reached, as in `read_to`.
    """
    end = (await consumer.end_offsets([changelog]))[changelog]
    consumer.seek(changelog, store.end)
    async for records in read_to(consumer, changelog, end):
        changes = {record.key: record.value for record in records}
        if None in changes:
            raise Fatal(
                f"{changelog.topic}[{changelog.partition}] holds a record without a key before "
                f"offset {records[-1].offset + 1}; something else writes to this topic: stop that"
            )
        store.apply(changes, records[-1].offset + 1)
    return store
