"""Take over a command partition: its state, its keys, and the position to continue from.

The position comes from the changelog, never from the group's committed offset: that one can be
read before the dead owner's transaction has completed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import Fatal, Transient
from streams.aggregate import TopicNames
from streams.kafka.clients import new_consumer, stop
from streams.kafka.log_reader import read_to
from streams.kafka.topic_ids import topic_id
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.rocksdb import Identity, open_rocksdb_store
from streams.state.store import MemoryStore, Position, StateStore

logger = logging.getLogger(__name__)

# How long the broker holds a fetch that finds nothing, and with it the next request on the same
# connection.
_FETCH_WAIT_MS = 20


@dataclass(frozen=True)
class Recovered:
    """State of a partition, the input position that belongs to it, and the keys."""

    state: StateStore
    position: Position
    keys: dict[bytes, bytes]
    """Wrapped data keys, by aggregate id."""


async def recover_partition(settings: Settings, names: TopicNames, tp: TP) -> Recovered:
    """Restore the state of an input partition whose earlier owners have been fenced.

    Raises:
        Fatal: commands expired before they were decided, the changelog was lost, or something else
            that only a person can repair; the message says what.
        KafkaError, Transient: reading failed, or the command topic ends before the position.
    """
    changelog, source, events, keys = (
        TopicPartition(topic, tp.partition)
        for topic in (names.changelog, tp.topic, names.events, names.keys)
    )
    consumer = new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS)
    state: StateStore | None = None
    try:
        await consumer.start()
        consumer.assign([changelog, source, events, keys])
        consumer.pause(source, events)  # only their begin and end are needed
        state = await _open_store(settings, consumer, changelog)
        restored_from = state.end
        await restore(consumer, changelog, state)
        wrapped = (await restore(consumer, keys, MemoryStore())).records
        begin = (await consumer.beginning_offsets([source]))[source]
        end = (await consumer.end_offsets([source]))[source]
        position = state.position(tp)
        if position is None and await _has_records(consumer, events):
            raise Fatal(
                f"{changelog.topic}[{tp.partition}] is empty but {events.topic}[{tp.partition}] is "
                "not: the state was lost, and deciding without it would repeat every command; "
                "restore the changelog from a backup"
            )
        if position is None:
            position = Position(begin)
        _check_position(tp, position.offset, begin, end)
    except BaseException:
        if state is not None:
            state.close()
        raise
    finally:
        await stop(consumer)
    logger.info(
        "%s[%d]: restored from offset %d to %d",
        changelog.topic,
        tp.partition,
        restored_from,
        state.end,
    )
    return Recovered(state, position, wrapped)


async def _open_store(
    settings: Settings, consumer: AIOKafkaConsumer, changelog: TopicPartition
) -> StateStore:
    """Open the store on this host's disk if the settings have a folder for it, or one in memory."""
    if settings.state_dir is None:
        return MemoryStore()
    identity = Identity(await topic_id(settings, changelog.topic), changelog.partition)
    begin = (await consumer.beginning_offsets([changelog]))[changelog]
    end = (await consumer.end_offsets([changelog]))[changelog]
    folder = settings.state_dir / f"{changelog.topic}-{changelog.partition}"
    return open_rocksdb_store(folder, identity, begin, end)


def _check_position(tp: TP, position: int, begin: int, end: int) -> None:
    """Check that ``position`` is within the log of the commands."""
    where = f"{tp.topic}[{tp.partition}]"
    if position < begin:
        raise Fatal(
            f"{where}: {begin - position} commands expired before they were decided (position "
            f"{position}, log starts at {begin}); to continue without them run "
            f"`cqrs topics skip-expired {tp.partition}`"
        )
    if position > end:
        raise Transient(
            f"{where} ends at {end}, before the position {position}: if its leader is not just "
            "behind, records were lost or the topic was deleted and created again; restore it from "
            "a backup, or use another CQRS_NAMESPACE"
        )


async def _has_records(consumer: AIOKafkaConsumer, tp: TopicPartition) -> bool:
    """Whether there is any committed record; aborted ones and markers do not count."""
    end = (await consumer.end_offsets([tp]))[tp]
    await consumer.seek_to_beginning(tp)
    consumer.resume(tp)
    async for _ in read_to(consumer, tp, end):
        return True
    return False
