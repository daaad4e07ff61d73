"""The order in which aggregates came into being: that of their first events on the event topic.

No field of a document has it. Times are what commands say, so they may lie before any time that was
seen already, and the partitions are projected independently of each other. The event topic is the
order itself: the first event of an aggregate never moves and never comes again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.records import Record
from streams.settings import Settings


class _Event(msgspec.Struct, rename="camel"):
    """What has to be known of an event; never sealed."""

    aggregate_id: str
    sequence: int


_decode = msgspec.json.Decoder(_Event).decode

T = TypeVar("T")

Show = Callable[[Sequence[str]], Awaitable[Mapping[str, T]]]
"""Returns what is shown of these aggregates, by id, without those of which nothing is."""


async def read_arrivals(
    settings: Settings,
    topic: str,
    begins: Sequence[int],
    ends: Mapping[int, int],
    show: Show[T],
    *,
    limit: int,
) -> tuple[list[T], list[int]]:
    """Return what is shown of those who came from `begins` on, and where to continue.

    Each is returned once, if the next call begins where the last one ended. Of a partition they are
    in the order of their first events; partitions come one after another. Fewer than `limit` are
    all that there are up to `ends`.

    Args:
        settings: Contains the address of Kafka.
        topic: The event topic.
        begins: First offset to read, by partition.
        ends: Offset at which to stop, by partition (exclusive): how far a view is.
        show: Returns what is shown of some aggregates, by id. It is asked for some that are not
            returned.
        limit: Most aggregates to return.

    Raises:
        Fatal: Kafka does not answer.
        Transient: Kafka failed meanwhile.
        Exception: What `show` raises.
    """
    partitions = [TopicPartition(topic, number) for number in range(len(begins))]
    try:
        async with open_logs(settings, partitions) as logs:
            return await collect_arrivals(logs, topic, begins, ends, show, limit)
    except KafkaError as error:
        raise Transient(f"Kafka failed: {type(error).__name__}; ask again") from error


async def collect_arrivals(
    logs: LogReader,
    topic: str,
    begins: Sequence[int],
    ends: Mapping[int, int],
    show: Show[T],
    limit: int,
) -> tuple[list[T], list[int]]:
    """Do what `read_arrivals` does, with these logs."""
    found: list[T] = []
    positions = list(begins)
    least = 1  # grows: many in a row of whom nothing is shown take few requests
    for number, begin in enumerate(begins):
        async for records in logs.read(TopicPartition(topic, number), begin, ends[number]):
            arrived = list(_first_events(records))
            while arrived:
                size = max(limit - len(found), least)
                asked, arrived = arrived[:size], arrived[size:]
                least *= 2
                shown = await show([id_ for id_, _ in asked])
                for id_, offset in asked:
                    if id_ in shown:
                        found.append(shown[id_])
                        if len(found) == limit:
                            positions[number] = offset + 1
                            return found, positions
        positions[number] = max(begin, ends[number])
    return found, positions


def _first_events(records: Iterable[Record]) -> Iterator[tuple[str, int]]:
    """Yield the id of each aggregate whose first event is one of these, and its offset."""
    for record in records:
        id_ = _first_of(record.key, record.value)
        if id_ is not None:
            yield id_, record.offset


def _first_of(key: bytes | None, value: bytes | None) -> str | None:
    """Return the id of the aggregate whose first event this is, or None."""
    try:
        event = _decode(value or b"")
    except (msgspec.DecodeError, ValueError):
        return None  # no event: it is in the view's dead letters
    return (
        event.aggregate_id if event.sequence == 1 and key == event.aggregate_id.encode() else None
    )
