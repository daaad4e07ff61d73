"""Giving up commands that retention removed before they were decided.

A worker refuses to skip them: only a person can give them up, so this is a command of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.aggregate import TopicNames
from streams.commands.positions import move_position
from streams.kafka.log_reader import open_logs
from streams.kafka.topic_ids import topic_id
from streams.settings import Settings
from streams.state.input_log import check_partitions, check_topic
from streams.state.recovery import last_position


@dataclass(frozen=True)
class Expired:
    """Commands that are gone and were not decided: from `position` to `begin` (exclusive)."""

    position: int
    begin: int

    @property
    def count(self) -> int:
        """Number of these offsets; those of transaction markers count, too."""
        return max(0, self.begin - self.position)


async def find_expired(settings: Settings, names: TopicNames, partition: int) -> Expired:
    """Return which commands of a partition expired before they were decided.

    Raises:
        Fatal: the topic is not the one that the position refers to.
    """
    commands, changelog = (
        TopicPartition(topic, partition) for topic in (names.commands, names.changelog)
    )
    async with open_logs(settings, [commands, changelog]) as logs:
        stored = await last_position(logs, names, partition)
        begin = (await logs.begin_offsets([commands]))[commands]
    check_topic(TP(*commands), stored, await topic_id(settings, names.commands))
    check_partitions(TP(*commands), stored, (), settings.partitions)
    return Expired(begin if stored is None else stored.offset, begin)


async def skip_expired(
    settings: Settings, names: TopicNames, partition: int, worker: str
) -> Expired:
    """Give up the commands of a partition that expired undecided, and return which those were.

    Args:
        settings: with the address of Kafka.
        names: of the aggregate's topics.
        partition: number of the partition of the command topic.
        worker: app id of the command workers, without the namespace.

    Raises:
        Fatal: at every attempt a worker took the partition over, or as `find_expired`.
    """
    return await move_position(
        settings,
        names,
        partition,
        worker,
        lambda: find_expired(settings, names, partition),
        lambda expired: {"offset": expired.begin} if expired.count else {},
    )
