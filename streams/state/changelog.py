"""Restore a state store from its changelog.

Faust's own recovery is not used: it swallows errors, can be skipped at random, and keeps the
records of partitions that the worker has lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from models.errors import PartitionFatal
from streams.kafka.log_reader import read_to
from streams.logs import about
from streams.state.store import StateStore

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=StateStore)


async def restore(consumer: AIOKafkaConsumer, changelog: TopicPartition, store: S, end: int) -> S:
    """Apply to a store what it lacks of its changelog, up to offset ``end``, and return the store.

    ``consumer`` is assigned the changelog and reads committed records. To take a partition over,
    fence earlier owners first, and let ``end`` be that of all records, committed or not: the last
    stable offset, which this consumer takes for the end, is before the first record of any open
    transaction, also of another program, and before all that was committed after it.

    Raises:
        PartitionFatal: a record has no key, so something else writes to the changelog.
        Transient: the end was not reached, as in `read_to`.
    """
    stable = (await consumer.end_offsets([changelog]))[changelog]
    if stable < end:
        logger.warning(
            "%s[%d]: a transaction is open at offset %d; waiting until it has ended",
            changelog.topic,
            changelog.partition,
            stable,
            extra=about("state-waits", changelog),
        )
    consumer.seek(changelog, store.end)
    async for records in read_to(consumer, changelog, end):
        check_keys(changelog, records)
        store.apply({record.key: record.value for record in records}, records[-1].offset + 1)
    return store


def check_keys(changelog: TopicPartition, records: Sequence[Any]) -> None:
    """Check that these records of a changelog have keys, as all of ours do.

    Raises:
        PartitionFatal: one has none, so something else writes to the changelog.
    """
    if any(record.key is None for record in records):
        raise PartitionFatal(
            f"{changelog.topic}[{changelog.partition}] holds a record without a key before "
            f"offset {records[-1].offset + 1}; something else writes to this topic: stop that"
        )
