"""Restore a state store from its changelog.

Faust's own recovery is not used: it swallows errors, can be skipped at random, and keeps the
records of partitions that the worker has lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from models.errors import PartitionFatal
from streams.kafka.log_reader import read_to
from streams.logs import about, name_of
from streams.state.store import UNREADABLE_KEY, StateStore

logger = logging.getLogger(__name__)


async def restore(
    consumer: AIOKafkaConsumer, changelog: TopicPartition, store: StateStore, end: int
) -> None:
    """Apply to a store what it lacks of its changelog, up to offset ``end``.

    ``consumer`` is assigned the changelog and reads committed records. To take a partition over,
    fence earlier owners first, and let ``end`` be that of all records, committed or not: the last
    stable offset, which this consumer takes for the end, is before the first record of any open
    transaction, also of another program, and before all that was committed after it.

    A record that cannot be read is left out, and the store remembers it (`unreadable_to`). Somebody
    else wrote it. Its key may be that of a state: compaction has then removed that one.

    Raises:
        PartitionFatal: a record has no key, so something else writes to the changelog.
        Transient: the end was not reached, as in `read_to`.
    """
    stable = (await consumer.end_offsets([changelog]))[changelog]
    if stable < end:
        logger.warning(
            "%s: a transaction is open at offset %d; waiting until it has ended",
            name_of(changelog),
            stable,
            extra=about("state-waits", changelog),
        )
    consumer.seek(changelog, store.end)
    async for records in read_to(consumer, changelog, end):
        readable = readable_records(changelog, records)
        changes = {record.key: record.value for record in readable}
        if len(readable) < len(records):
            last = max(one.offset for one in records if one.unreadable is not None)
            changes[UNREADABLE_KEY] = b"%d" % (last + 1)
        store.apply(changes, records[-1].offset + 1)


def readable_records(changelog: TopicPartition, records: Sequence[Any]) -> Sequence[Any]:
    """Return those records of a changelog that can be read, and log the others.

    Raises:
        PartitionFatal: one of those has no key, so something else writes to the changelog.
    """
    readable = [record for record in records if record.unreadable is None]
    for record in records:
        if record.unreadable is not None:
            logger.error(
                "%s: the record at offset %d cannot be read and is left out: %s; something "
                "else writes to this topic: stop that",
                name_of(changelog),
                record.offset,
                record.unreadable,
                extra=about("record-left-out", changelog, offset=record.offset),
            )
        elif record.key is None:
            raise PartitionFatal(
                f"{name_of(changelog)} holds a record without a key before "
                f"offset {records[-1].offset + 1}; something else writes to this topic: stop that"
            )
    return readable
