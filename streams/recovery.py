"""Taking over a command partition: its state, and where to go on reading.

The position comes from the changelog, never from the group's committed offset: that one can be
read before the dead owner's transaction has completed.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import Fatal
from streams.aggregate import Names
from streams.kafka import new_consumer
from streams.settings import Settings
from streams.state_table import PartitionState, restore


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
    consumer = new_consumer(settings)
    await consumer.start()
    try:
        state = await restore(consumer, names.changelog, tp.partition)
        source = TopicPartition(tp.topic, tp.partition)
        begin = (await consumer.beginning_offsets([source]))[source]
        position = state.position(tp)
        if position is None:
            await _check_new(consumer, names, tp)
            return Recovered(state, begin)
        if position < begin:
            raise Fatal(
                f"{tp.topic}[{tp.partition}]: {begin - position} commands expired before they "
                f"were decided (position {position}, log starts at {begin}); they are lost: "
                f"accept that with `cqrs topics skip-expired {tp.partition}`"
            )
        return Recovered(state, position)
    finally:
        await consumer.stop()


async def _check_new(consumer: object, names: Names, tp: TP) -> None:
    """A partition without a stored position must be new: no event may exist."""
    events = TopicPartition(names.events, tp.partition)
    end = (await consumer.end_offsets([events]))[events]  # type: ignore[attr-defined]
    if end > 0:
        raise Fatal(
            f"{names.changelog}[{tp.partition}] is empty but {names.events}[{tp.partition}] is "
            "not: the state was lost; deciding without it would repeat every command"
        )
