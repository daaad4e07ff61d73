"""Follow one command through the topics while it goes on; `streams/audit/trail.py` is its way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.aggregate import Aggregate, TopicNames
from streams.audit.trail import Trail
from streams.kafka.clients import new_consumer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, topic_specs
from streams.settings import Settings

_POLL_MS = 200
_FETCH_WAIT_MS = 50


async def follow_command(
    settings: Settings,
    aggregate: Aggregate[Any],
    command_id: UUID,
    *,
    aggregate_id: str | None,
    since: datetime,
    on_start: Callable[[str], None],
) -> AsyncIterator[Trail]:
    """Yield the trail of a command each time that something was read, until it is complete.

    Waits for the command, and for what becomes of it, as long as that takes.

    Args:
        settings: with the address of Kafka.
        aggregate: kind of the command's aggregate.
        command_id: id of the command.
        aggregate_id: id of its aggregate, which tells the partition; None: all partitions are read.
        since: records that the broker got before are not read.
        on_start: called with what is read, in a few words.

    Raises:
        Fatal: Kafka does not answer, or a topic is missing.
        Transient: Kafka failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    await check_topics(settings, topic_specs(settings, names), reader(names))
    key = None if aggregate_id is None else aggregate_id.encode()
    numbers = range(settings.partitions)
    if key is not None:
        numbers = range(number := partition_of(key, settings.partitions), number + 1)
    partitions = [
        TopicPartition(topic, number)
        for topic in (names.commands, names.outcomes, names.events)
        for number in numbers
    ]
    trail = Trail(names, command_id, key)
    try:
        unstarted = new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS, max_poll_records=None)
        async with started(unstarted, settings) as consumer:
            count = await _go_to(consumer, partitions, since)
            where = f"{len(numbers)} partitions" if key is None else f"partition {numbers[0]}"
            on_start(f"{where} of 3 topics, some {count:,} records, and what comes")
            while not trail.is_complete:
                found = await consumer.getmany(timeout_ms=_POLL_MS)
                for record in (record for records in found.values() for record in records):
                    trail.add(record)
                await _give_up_what_was_passed(consumer, trail)
                yield trail
    except KafkaError as error:
        raise Transient(f"Kafka failed while reading: {type(error).__name__}; try again") from error


async def _give_up_what_was_passed(consumer: AIOKafkaConsumer, trail: Trail) -> None:
    """Do without a command that has expired, or that came before what is read."""
    missing = trail.missing_command
    if missing is not None:
        partition = TopicPartition(missing.topic, missing.partition)
        if await consumer.position(partition) > missing.offset:
            trail.give_up_command()


async def _go_to(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], since: datetime
) -> int:
    """Go to the first records since a time; return how many offsets there are from them on."""
    consumer.assign(partitions)
    milliseconds = max(0, int(since.timestamp() * 1000))
    first = await consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
    ends = await consumer.end_offsets(partitions)
    count = 0
    for partition in partitions:
        found = first[partition]
        start = ends[partition] if found is None else found.offset
        consumer.seek(partition, start)
        count += max(0, ends[partition] - start)
    return count
