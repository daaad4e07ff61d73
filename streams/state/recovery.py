"""Take over a command partition: its state, its keys, and the position to continue from.

The position comes from the changelog, never from the group's committed offset: that one can be
read before the dead owner's transaction has completed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.types import TP
from msgspec.structs import replace

from models.errors import PartitionFatal
from streams.aggregate import TopicNames
from streams.kafka.clients import new_consumer, stop
from streams.kafka.log_reader import LogReader, read_to
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import partitions_of
from streams.logs import about, name_of
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.input_log import check_bounds, check_partitions, check_topic
from streams.state.rocksdb import Identity, open_rocksdb_store
from streams.state.store import (
    MemoryStore,
    Position,
    StateStore,
    decode_position,
    position_key,
)

logger = logging.getLogger(__name__)

# How long the broker holds a fetch that finds nothing, and with it the next request on the same
# connection.
_FETCH_WAIT_MS = 20

# How long a log may end before the position: a new leader may be behind for a moment.
_LEADER_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Recovered:
    """State of a partition, the input position that belongs to it, and the keys."""

    state: StateStore
    position: Position
    keys: dict[bytes, bytes]
    """Wrapped data keys, by aggregate id."""
    is_incomplete: bool = False
    """Whether a state may be missing, so that all have to be rebuilt from the events."""


async def recover_partition(settings: Settings, names: TopicNames, tp: TP) -> Recovered:
    """Restore the state of an input partition whose earlier owners have been fenced.

    Raises:
        PartitionFatal: commands expired before they were decided, the command topic is not the one
            that the state was made from, the changelog was lost, or something else that only a
            person can repair; the message says what.
        Fatal: the state was made with another number of partitions.
        KafkaError, Transient: reading failed, or a transaction of another program stays open on the
            changelog or the keys topic.
    """
    changelog, source, events, keys = (
        TopicPartition(topic, tp.partition)
        for topic in (names.changelog, tp.topic, names.events, names.keys)
    )
    consumer = new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS)
    state: StateStore | None = None
    try:
        input_id = await topic_id(settings, tp.topic)
        await consumer.start()
        consumer.assign([changelog, source, events, keys])
        consumer.pause(source, events)  # only their begin and end are needed
        ends = await written_ends(settings, [changelog, keys])
        state = await _open_store(settings, consumer, changelog, ends[changelog])
        restored_from = state.end
        await restore(consumer, changelog, state, ends[changelog])
        wrapped = MemoryStore()
        # Of a key that is missing only its aggregate notices.
        await restore(consumer, keys, wrapped, ends[keys])
        stored = state.position(tp)
        check_topic(tp, stored, input_id)
        check_partitions(tp, stored, state, settings.partitions)
        if stored is None and await _has_records(consumer, events):
            raise PartitionFatal(
                f"{name_of(changelog)} is empty but {name_of(events)} is "
                "not: the state was lost, and deciding without it would repeat every command; "
                "restore the changelog from a backup"
            )
        begin = (await consumer.beginning_offsets([source]))[source]
        if stored is None:
            await _check_other_partitions(settings, consumer, names, tp)
            stored = Position(begin)
        else:
            end = await _end_at_least(consumer, source, stored.offset)
            check_bounds(tp, stored, begin, end)
        unreadable_to = state.unreadable_to
        is_incomplete = unreadable_to > stored.complete_from
        position = replace(
            stored,
            topic_id=input_id,
            partitions=settings.partitions,
            complete_from=max(unreadable_to, stored.complete_from),
        )
        await stop(consumer)
    except BaseException:  # also a cancellation while the consumer stops
        if state is not None:
            state.close()
        await stop(consumer)
        raise
    logger.debug(
        "%s: restored from offset %d to %d",
        name_of(changelog),
        restored_from,
        state.end,
        extra=about("state-restored", changelog, position=state.end),
    )
    return Recovered(state, position, wrapped.records, is_incomplete)


async def written_ends(
    settings: Settings, partitions: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the ends of these partitions, with what open transactions have written."""
    consumer = new_consumer(settings, isolation_level="read_uncommitted")
    try:
        await consumer.start()
        consumer.assign(partitions)
        consumer.pause(*partitions)
        return await consumer.end_offsets(partitions)  # type: ignore[no-any-return]
    finally:
        await stop(consumer)


async def _open_store(
    settings: Settings, consumer: AIOKafkaConsumer, changelog: TopicPartition, end: int
) -> StateStore:
    """Open the store on this host's disk if the settings have a folder for it, or one in memory."""
    if settings.state_dir is None:
        return MemoryStore()
    identity = Identity(await topic_id(settings, changelog.topic), changelog.partition)
    begin = (await consumer.beginning_offsets([changelog]))[changelog]
    folder = settings.state_dir / f"{changelog.topic}-{changelog.partition}"
    return open_rocksdb_store(folder, identity, begin, end)


async def _end_at_least(consumer: AIOKafkaConsumer, tp: TopicPartition, position: int) -> int:
    """Return the end of a log; if it is before the position, wait a few seconds for the leader."""
    deadline = time.monotonic() + _LEADER_TIMEOUT_S
    while True:
        end: int = (await consumer.end_offsets([tp]))[tp]
        if end >= position or time.monotonic() > deadline:
            return end
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _check_other_partitions(
    settings: Settings, consumer: AIOKafkaConsumer, names: TopicNames, tp: TP
) -> None:
    """Check by the other partitions' states that a partition without any state is not a new one.

    The consumer's assignment is another one afterwards.

    Raises:
        Fatal: they were made with another number of partitions.
    """
    ends = await consumer.end_offsets(partitions_of(settings, names.changelog))
    written = [changelog for changelog, end in ends.items() if end]
    logs = LogReader(consumer, consumer)
    for changelog in written:
        stored = None
        with suppress(PartitionFatal):  # a damaged log parks its own partition alone
            stored = await last_position(logs, names, changelog.partition)
        if stored is not None and stored.partitions is not None:
            check_partitions(tp, stored, (), settings.partitions)
            return


async def last_position(logs: LogReader, names: TopicNames, partition: int) -> Position | None:
    """Return the newest position in the changelog of a partition, or None if there is none.

    It is the last record of each transaction, so this reads only the end of the changelog.
    """
    changelog = TopicPartition(names.changelog, partition)
    key = position_key(TP(names.commands, partition))
    end = (await logs.end_offsets([changelog]))[changelog]
    record = await logs.last_record(changelog, end, lambda record: bool(record.key == key))
    return None if record is None else decode_position(record.value)


async def _has_records(consumer: AIOKafkaConsumer, tp: TopicPartition) -> bool:
    """Whether there is any committed record; aborted ones and markers do not count."""
    end = (await consumer.end_offsets([tp]))[tp]
    await consumer.seek_to_beginning(tp)
    consumer.resume(tp)
    async for _ in read_to(consumer, tp, end):
        return True
    return False
