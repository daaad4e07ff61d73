"""The order in which aggregates came into being: that of their first events on the event topic.

No field of a document has it. Times are what commands say, so they may lie before any time that was
seen already, and the partitions are projected independently of each other. The event topic is the
order itself: the first event of an aggregate never moves and never comes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.kafka.log_reader import LogReader, open_logs
from streams.settings import Settings


class _Event(msgspec.Struct, rename="camel"):
    """What has to be known of an event; never sealed."""

    aggregate_id: str
    sequence: int


_decode = msgspec.json.Decoder(_Event).decode


async def read_arrivals(
    settings: Settings,
    topic: str,
    begins: Sequence[int],
    ends: Mapping[int, int],
    *,
    limit: int,
) -> tuple[list[str], list[int]]:
    """Return the aggregates whose first events are from `begins` on, and where to continue.

    Each is returned once, if the next call begins where the last one ended. Of a partition they are
    in the order of their first events; partitions come one after another.

    Args:
        settings: Contains the address of Kafka.
        topic: The event topic.
        begins: First offset to read, by partition.
        ends: Offset at which to stop, by partition (exclusive): how far a view is.
        limit: Most aggregates to return.

    Raises:
        Fatal: Kafka does not answer.
        Transient: Kafka failed meanwhile.
    """
    partitions = [TopicPartition(topic, number) for number in range(len(begins))]
    try:
        async with open_logs(settings, partitions) as logs:
            return await collect_arrivals(logs, topic, begins, ends, limit)
    except KafkaError as error:
        raise Transient(f"Kafka failed: {type(error).__name__}; ask again") from error


async def collect_arrivals(
    logs: LogReader, topic: str, begins: Sequence[int], ends: Mapping[int, int], limit: int
) -> tuple[list[str], list[int]]:
    """Do what `read_arrivals` does, with these logs."""
    found: list[str] = []
    positions = list(begins)
    for number, begin in enumerate(begins):
        async for records in logs.read(TopicPartition(topic, number), begin, ends[number]):
            for record in records:
                if len(found) == limit:
                    return found, positions
                positions[number] = record.offset + 1
                aggregate_id = _first_of(record.key, record.value)
                if aggregate_id is not None:
                    found.append(aggregate_id)
        positions[number] = max(begin, ends[number])
    return found, positions


def _first_of(key: bytes | None, value: bytes | None) -> str | None:
    """Return the id of the aggregate whose first event this is, or None."""
    try:
        event = _decode(value or b"")
    except (msgspec.DecodeError, ValueError):
        return None  # no event: it is in the view's dead letters
    return (
        event.aggregate_id if event.sequence == 1 and key == event.aggregate_id.encode() else None
    )
