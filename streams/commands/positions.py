"""Move the position of a partition by hand, in a transaction like a worker's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from aiokafka.structs import TopicPartition
from faust.types import TP
from msgspec.structs import replace

from streams.aggregate import TopicNames
from streams.commands.ownership import work_as_owner
from streams.kafka.log_reader import open_logs
from streams.kafka.topic_ids import topic_id
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from streams.settings import Settings
from streams.state.recovery import last_position
from streams.state.store import Position, encode_position, position_key

T = TypeVar("T")


async def move_position(
    settings: Settings,
    names: TopicNames,
    partition: int,
    worker: str,
    find: Callable[[], Awaitable[T]],
    changes: Callable[[T], Mapping[str, int]],
) -> T:
    """Fence the owner of a partition, then move its position; return what was found then.

    A worker that owns the partition is fenced, and takes it over again.

    Args:
        settings: with the address of Kafka.
        names: of the aggregate's topics.
        partition: number of the partition of the command topic.
        worker: app id of the command workers, without the namespace.
        find: looks at the partition after its owner was fenced.
        changes: fields of `Position` to set, by what was found; none to leave it as it is.

    Raises:
        Fatal: at every attempt a worker took the partition over.
    """
    tp = TP(names.commands, partition)

    async def move(producer: TransactionalProducer) -> T:
        found = await find()
        fields = changes(found)
        if fields:
            position = await _changed_position(settings, names, partition, fields)
            record = OutputRecord(position_key(tp), encode_position(position))
            await producer.commit({names.changelog: producer.batches([record])})
        return found

    return await work_as_owner(settings, tp, worker, move, "its position was moved")


async def _changed_position(
    settings: Settings, names: TopicNames, partition: int, fields: Mapping[str, int]
) -> Position:
    """Return the position with these fields changed, in the topic as it is now."""
    async with open_logs(settings, [TopicPartition(names.changelog, partition)]) as logs:
        stored = await last_position(logs, names, partition)
    return replace(
        stored or Position(0),
        topic_id=await topic_id(settings, names.commands),
        partitions=settings.partitions,
        **fields,
    )
