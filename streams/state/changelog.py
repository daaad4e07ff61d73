"""Restoring a state from its changelog.

Faust's own recovery swallows errors, can be skipped at random and keeps what lost partitions left
behind.
"""

from __future__ import annotations

from typing import TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from models.errors import Fatal
from streams.kafka.log_reader import read_to
from streams.state.store import StateStore

S = TypeVar("S", bound=StateStore)


async def restore(consumer: AIOKafkaConsumer, changelog: TopicPartition, state: S) -> S:
    """Read what a state lacks from its changelog, up to the changelog's end now, and return it.

    ``consumer`` is assigned the changelog and reads committed records. The caller has fenced
    earlier owners, so no open transaction hides the end.

    Raises:
        Fatal: the changelog holds what is no state.
        Transient: reading it did not get on.
    """
    end = (await consumer.end_offsets([changelog]))[changelog]
    consumer.seek(changelog, state.end)
    async for records in read_to(consumer, changelog, end):
        changes = {record.key: record.value for record in records}
        if None in changes:
            raise Fatal(
                f"{changelog.topic}[{changelog.partition}] holds a record without a key before "
                f"offset {records[-1].offset + 1}; something else writes to this topic: stop that"
            )
        state.apply(changes, records[-1].offset + 1)
    return state
