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
from streams.audit.folds import Frozen
from streams.audit.partition import PartitionAudit
from streams.audit.report import Report
from streams.encryption.cipher import is_sealed_state
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, partitions_of, topic_specs
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.store import MemoryStore, Position
from streams.state.version import StateVersion, check_version
from streams.views.event_reader import sealed_ids

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
    read = [*partitions_of(settings, names.changelog), *partitions_of(settings, names.events)]
    report = Report()
    try:
        async with (
            open_logs(settings, read) as logs,
            open_key_ring(settings, names, keep_destroyed=True) as ring,
        ):
            for number in partitions:
                await _verify_partition(aggregate, names, number, logs, ring, report, progress)
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while checking: {type(error).__name__}; try again"
        ) from error
    return report


async def _verify_partition(
    aggregate: Aggregate[S],
    names: TopicNames,
    number: int,
    logs: LogReader,
    ring: KeyRing | None,
    report: Report,
    progress: ProgressCallback,
) -> None:
    commands = TP(names.commands, number)
    changelog, events = (TopicPartition(topic, number) for topic in (names.changelog, names.events))
    if ring is not None:
        # Before all else: if a key is missing then, the event that destroyed it is read below.
        await ring.catch_up(number)
    logs.consumer.assign([changelog])
    # Up to the last stable offset, which is never inside a transaction.
    stable = (await logs.consumer.end_offsets([changelog]))[changelog]
    state = await restore(logs.consumer, changelog, MemoryStore(), stable)
    stored = state.position(commands)
    check_version(commands, stored, StateVersion.of(aggregate))
    position = stored or Position(0)
    # After the state: the events of the commands below its position are before this end.
    end = (await logs.end_offsets([events]))[events]
    audit = PartitionAudit(
        aggregate,
        names,
        number,
        Frozen(position.offset, 0, position.events_from),
        view=None,
        report=report,
        keys=None if ring is None else ring.of(number),
    )
    async for records in logs.read(events, 0, end):
        if ring is not None:
            await ring.ensure_loaded(number, sealed_ids(records))
        audit.add_events(records)
        progress(f"Folding {events.topic}[{number}]", records[-1].offset + 1, end)
    if ring is not None:
        sealed = {key for key, value in state.records.items() if is_sealed_state(value)}
        await ring.ensure_loaded(number, sealed)
    audit.conclude_states(state.records)
