"""Continue with a command topic that was deleted and created again.

A worker refuses to decide its commands: what was not decided of the former topic is lost, and only
a person can accept that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.aggregate import TopicNames
from streams.commands.positions import move_position
from streams.kafka.log_reader import open_logs
from streams.kafka.topic_ids import topic_id
from streams.settings import Settings
from streams.state.input_log import check_partitions
from streams.state.recovery import last_position


@dataclass(frozen=True)
class Adoption:
    """What adopting the topic changes in one partition."""

    position: int
    """The position in the former topic."""
    begin: int
    """Where the new topic begins: the position in it."""

    # The ends of what the former topic caused.
    events: int
    outcomes: int
    dead_letters: int

    @property
    def changes(self) -> Mapping[str, int]:
        """The fields of the stored `Position` to change."""
        return {
            "offset": self.begin,
            "events_from": self.events,
            "outcomes_from": self.outcomes,
            "dead_letters_from": self.dead_letters,
        }


async def find_adoption(settings: Settings, names: TopicNames, partition: int) -> Adoption | None:
    """Return what adopting the topic would change; None if the position refers to this topic.

    A position of an older version does not contain the topic's id; it does not refer to this topic
    if it is after the topic's end.

    Raises:
        Fatal: the state was made with another number of partitions.
    """
    commands, *outputs = (
        TopicPartition(topic, partition)
        for topic in (names.commands, names.events, names.outcomes, names.dead_commands)
    )
    async with open_logs(settings, [commands, *outputs]) as logs:
        stored = await last_position(logs, names, partition)
        begin = (await logs.begin_offsets([commands]))[commands]
        ends = await logs.end_offsets([commands, *outputs])
    if stored is None:
        return None
    check_partitions(TP(*commands), stored, (), settings.partitions)
    if stored.topic_id is None:
        is_former = stored.offset > ends[commands]
    else:
        is_former = stored.topic_id != await topic_id(settings, names.commands)
    if not is_former:
        return None
    events, outcomes, dead_letters = (ends[output] for output in outputs)
    return Adoption(stored.offset, begin, events, outcomes, dead_letters)


async def adopt_topic(
    settings: Settings, names: TopicNames, partition: int, worker: str
) -> Adoption | None:
    """Move the position to the beginning of the new topic, and return what changed.

    Args:
        settings: with the address of Kafka.
        names: of the aggregate's topics.
        partition: number of the partition of the command topic.
        worker: app id of the command workers, without the namespace.

    Raises:
        Fatal: at every attempt a worker took the partition over.
    """
    return await move_position(
        settings,
        names,
        partition,
        worker,
        lambda: find_adoption(settings, names, partition),
        lambda adoption: {} if adoption is None else adoption.changes,
    )
