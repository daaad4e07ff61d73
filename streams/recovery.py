"""Taking over a command partition: its state, and where to go on reading.

The position comes from the changelog, never from the group's committed offset: that one can be
read before the dead owner's transaction has completed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import Fatal
from streams.aggregate import Names
from streams.kafka import new_consumer, stop
from streams.settings import Settings
from streams.state_table import PartitionState, restore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """A partition's state and the position in the input that it stands at."""

    state: PartitionState
    position: int


async def recover_partition(settings: Settings, names: Names, tp: TP) -> Recovered:
    """Restore the state of an input partition whose earlier owners have been fenced.

    Raises:
        Fatal: commands expired before they were decided, or the changelog was lost.
    """
    changelog, source, events = (
        TopicPartition(topic, tp.partition) for topic in (names.changelog, tp.topic, names.events)
    )
    consumer = new_consumer(settings)
    await consumer.start()
    try:
        consumer.assign([changelog, source, events])
        consumer.pause(source, events)  # of these only the bounds are wanted
        state = await restore(consumer, changelog)
        begin = (await consumer.beginning_offsets([source]))[source]
        written = (await consumer.end_offsets([events]))[events]
    finally:
        await stop(consumer)
    position = state.position(tp)
    if position is None:
        if written > 0:
            raise Fatal(
                f"{changelog.topic}[{tp.partition}] is empty but {events.topic}[{tp.partition}] is "
                "not: the state was lost, and deciding without it would repeat every command; "
                "restore the changelog from a backup"
            )
        position = begin
    elif position < begin:
        raise Fatal(
            f"{tp.topic}[{tp.partition}]: {begin - position} commands expired before they were "
            f"decided (position {position}, log starts at {begin}); to go on without them run "
            f"`cqrs topics skip-expired {tp.partition}`"
        )
    logger.info("%s[%d]: restored %d aggregates", changelog.topic, tp.partition, len(state.records))
    return Recovered(state, position)
