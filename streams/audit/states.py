"""Checks the states of an aggregate alone: that they are the fold of their events.

This is invariant I3 of `verify` (and I2, on which it rests), without waiting for any worker and
without the view. Commands may be decided meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import Transient
from streams.aggregate import Aggregate, TopicNames
from streams.audit.partition import PartitionAudit
from streams.audit.partition_logs import PartitionLogs, Shelf, count_buckets
from streams.audit.report import Report
from streams.encryption.keys import master_keys
from streams.kafka.log_reader import open_logs
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, topic_specs
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.store import Position
from streams.state.version import StateVersion, check_version

S = TypeVar("S")


async def verify_states(
    settings: Settings,
    aggregate: Aggregate[S],
    partitions: Iterable[int],
    progress: ProgressCallback = no_progress,
) -> Report:
    """Compare the states of these partitions with the folds of their events; write nothing.

    Returns a report of I2 and I3; the other invariants are not checked.

    Raises:
        Fatal: Kafka does not answer, a topic is missing, the master key is missing or wrong, or the
            states were made by a program with another state version.
        Transient: Kafka failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    await check_topics(settings, topic_specs(settings, names), reader(names))
    topics = (names.changelog, names.events)
    master = master_keys(settings)
    wanted = list(partitions)
    read = [TopicPartition(topic, number) for topic in (*topics, names.keys) for number in wanted]
    report = Report()
    done = total = 0

    def advance(records: int) -> None:
        nonlocal done
        done += records
        progress("Checking", done, total)

    try:
        async with open_logs(settings, read) as logs:
            buckets, records = await count_buckets(logs, topics, wanted)
            total = 2 * records  # each is read, and then compared
            for number in wanted:
                with PartitionLogs(
                    logs, names, number, buckets=buckets, master=master, advance=advance
                ) as found:
                    await _verify_partition(aggregate, names, number, found, report)
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while checking: {type(error).__name__}; try again"
        ) from error
    return report


async def _verify_partition(
    aggregate: Aggregate[S], names: TopicNames, number: int, logs: PartitionLogs, report: Report
) -> None:
    def check(stored: Position | None) -> None:
        check_version(TP(names.commands, number), stored, StateVersion.of(aggregate))

    frozen, _ = await logs.read(check, all_topics=False)
    for bucket in logs.buckets:
        audit = PartitionAudit(
            aggregate, names, number, frozen, view=None, report=report, keys=logs.keys(bucket)
        )
        audit.add_events(logs.records(Shelf.EVENTS, bucket))
        audit.conclude_states(logs.states(bucket))
