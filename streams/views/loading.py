"""What several processes do at once to build an index: load partitions, add up documents.

Each function has connections of its own and needs nothing of the process that it runs in, so a
helper can run it as well (`views/helpers.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import TypeVar

from aiokafka.structs import TopicPartition

from models.messages import Event
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connected
from streams.encryption.shredded import Shredded
from streams.kafka.lasting_producer import LastingProducer
from streams.kafka.log_reader import open_logs
from streams.settings import Settings
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import open_event_reader
from streams.views.feed import Feed
from streams.views.helpers import Report
from streams.views.indices import ViewIndices
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.reader import PointInTime
from streams.views.situation import EventLog
from streams.views.status import tally_documents
from streams.views.tally import Tally
from streams.views.writer import PartitionWriter

E = TypeVar("E", bound=Event)

REQUEST_TIMEOUT_S = 60.0


async def find_shredded(
    settings: Settings, view: View[E], ends: Mapping[int, int], *, report: Report
) -> Collection[str]:
    """Return whose personal data cannot be read in the events before these ends, by partition.

    Raises:
        Fatal, Transient, KafkaError: Kafka failed, or the master key is missing or wrong.
    """
    names = TopicNames.of(settings, view.aggregate)
    partitions = {TopicPartition(names.events, number): end for number, end in ends.items()}
    shredded = Shredded()
    async with (
        open_logs(settings, partitions) as logs,
        open_event_reader(settings, names, view.events, shredded) as reader,
    ):
        for partition, end in partitions.items():
            async for records in logs.read(partition, 0, end):
                await reader.read(records)
                report(partition.partition, records[-1].offset + 1)
    return shredded.ids


async def load_partitions(
    settings: Settings,
    view: View[E],
    index: str,
    log: EventLog,
    ends: Mapping[int, int],
    shredded_before: Collection[str],
    *,
    report: Report,
) -> Collection[str]:
    """Project the events of some partitions into an index, from its checkpoints to these ends.

    Args:
        settings: Contain the addresses of the servers.
        view: The view.
        index: Name of the index; nobody else projects these partitions into it.
        log: The event topic.
        ends: The positions to reach, by partition.
        shredded_before: Ids of whose personal data could not be read in the events before.
        report: Is told the position of each partition.

    Returns:
        Those and the ids of the events that were read, without those that were erased.

    Raises:
        IndexChanged: Somebody else does.
        Fatal, Transient, KafkaError: As `Feed.load` does.
    """
    names = TopicNames.of(settings, view.aggregate)
    shredded = Shredded(shredded_before)
    async with (
        connected(settings, timeout=REQUEST_TIMEOUT_S) as client,
        LastingProducer(settings) as producer,
        open_event_reader(settings, names, view.events, shredded) as reader,
    ):
        store = ViewIndices.from_settings(settings, client, view).store(index)
        share = settings.view_cache_documents * len(ends) // log.partitions
        projector = Projector(store, view, cached_documents=share)
        dead_letters = ViewDeadLetters(producer, names.dead_views, view.name)
        writers = {
            number: PartitionWriter(store, projector, view.projection, dead_letters, number, log)
            for number in ends
        }

        def report_position(number: int) -> None:
            report(number, writers[number].checkpoint.position)

        await Feed(settings, names.events, reader, writers).load(ends, report_position)
    return shredded.ids


async def tally_part(
    settings: Settings,
    view: View[E],
    index: str,
    partitions: int,
    point: PointInTime,
    *,
    report: Report,
) -> list[Tally]:
    """Return the tallies of a part of the documents of an index, by partition.

    `report` is told how many documents of the part were read.

    Raises:
        Fatal, Transient: Elasticsearch refuses, or failed.
    """
    async with connected(settings, timeout=REQUEST_TIMEOUT_S) as client:
        store = ViewIndices.from_settings(settings, client, view).store(index)
        return await tally_documents(view, store, partitions, point, partial(report, point.number))
