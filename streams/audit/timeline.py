"""The timeline of one aggregate: its commands, what became of each, and its state at any time.

Everything is read from the topics, in the one partition that the aggregate's id belongs to. That
takes as long as reading these partitions: 300,000 to 800,000 records per second (a million events
of 250 bytes on a local broker, three times, with other work on its two cores).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.errors import Poison, Transient
from models.messages import EventRecord
from models.outcomes import Accepted, Outcome, Parked, parse_outcome
from streams.aggregate import Aggregate, TopicNames
from streams.commands.reader import command_id_in, command_type_in
from streams.encryption.cipher import may_be_sealed
from streams.encryption.events import read_event
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record, time_of
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, topic_specs
from streams.logs import name_of
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.recovery import last_position
from streams.state.snapshot import Snapshot
from streams.state.store import Position

S = TypeVar("S")


@dataclass(frozen=True)
class CommandRecord:
    """A record on the command topic."""

    time: datetime
    """Time of its record: when the broker got it."""
    type: str | None
    """None if it cannot be read, as for the id."""
    id: UUID | None


@dataclass(frozen=True)
class Entry:
    """One record of the command topic with the aggregate's id as its key."""

    offset: int
    """Its offset on the command topic, or on a former one (`cqrs topics adopt`)."""
    command: CommandRecord | None
    """None if retention has removed it, or if it was on a former topic."""
    outcome: Outcome | None
    """None if it is not decided yet, or if retention has removed the outcome. `Parked` if it still
    waits."""
    events: tuple[EventRecord[Any], ...]

    @property
    def time(self) -> datetime:
        """When it was produced, according to its record."""
        if self.command is not None:
            return self.command.time
        return self.events[0].timestamp if self.outcome is None else self.outcome.timestamp


@dataclass(frozen=True)
class Timeline:
    """Everything on the topics about one aggregate, in the order in which it was decided."""

    aggregate_id: str
    partition: int
    entries: tuple[Entry, ...]
    unreadable: tuple[str, ...]
    """Records that cannot be read, with the reason; see `entries` for the others."""
    records_read: int
    """Number of records that were read to find these."""

    @property
    def events(self) -> tuple[EventRecord[Any], ...]:
        """All its events, by sequence."""
        events = (event for entry in self.entries for event in entry.events)
        return tuple(sorted(events, key=attrgetter("sequence")))


def state_of(
    aggregate: Aggregate[S],
    timeline: Timeline,
    *,
    version: int | None = None,
    time: datetime | None = None,
) -> Snapshot[S]:
    """Fold the events of a timeline; return the state and its version, without a dedupe window.

    Args:
        aggregate: the kind of aggregate.
        timeline: of one of them.
        version: fold the events up to this sequence.
        time: fold the events up to the last one that is not later than this.
    """
    events = [one for one in timeline.events if version is None or one.sequence <= version]
    if time is not None:
        last = max((one.sequence for one in events if one.timestamp <= time), default=0)
        events = [one for one in events if one.sequence <= last]
    state: S | None = None
    for event in events:
        state = aggregate.evolve(state, event.event, event.timestamp)
    return Snapshot(state, events[-1].sequence if events else 0, ())


def entries_of(
    sent: Mapping[int, CommandRecord],
    decided: Mapping[int, Sequence[Outcome]],
    happened: Mapping[int, Sequence[EventRecord[Any]]],
) -> tuple[Entry, ...]:
    """Return the entries, by offset; the arguments are by the offsets of the sources.

    The source of an event of a command that was parked is the record that ended the wait.
    """
    outcomes = {offset: _final(found) for offset, found in decided.items()}
    late = {
        one.command_id: offset
        for offset, one in outcomes.items()
        if isinstance(one, Accepted) and one.decided_by is not None
    }
    events: dict[int, list[EventRecord[Any]]] = defaultdict(list)
    for source, found in happened.items():
        for event in found:
            offset = late.get(event.command_id, source)
            is_late = offset != source and outcomes[offset].decided_at == source
            events[offset if is_late else source].append(event)
    return tuple(
        Entry(offset, sent.get(offset), outcomes.get(offset), tuple(events[offset]))
        for offset in sorted({*sent, *outcomes, *events})
    )


def _final(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the final outcome of a command, or that it is parked."""
    return next((one for one in outcomes if not isinstance(one, Parked)), outcomes[0])


async def read_timeline(
    settings: Settings,
    aggregate: Aggregate[Any],
    aggregate_id: str,
    progress: ProgressCallback = no_progress,
) -> Timeline:
    """Read the timeline of an aggregate up to what is committed now.

    Personal data is decrypted if the settings have the master key; it is empty if the aggregate was
    erased.

    Raises:
        Fatal: Kafka does not answer, a topic is missing, or there is encrypted data and the master
            key is missing or wrong.
        Transient: Kafka failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    await check_topics(settings, topic_specs(settings, names), reader(names))
    number = partition_of(aggregate_id.encode(), settings.partitions)
    outcomes, events, commands, changelog = (
        TopicPartition(topic, number)
        for topic in (names.outcomes, names.events, names.commands, names.changelog)
    )
    try:
        async with (
            open_logs(settings, [outcomes, events, commands, changelog]) as logs,
            open_key_ring(settings, names) as ring,
        ):
            position = await last_position(logs, names, number) or Position(0)
            reading = _Reading(aggregate, aggregate_id, logs, ring, progress)
            return await reading.timeline(outcomes, events, commands, position)
    except KafkaError as error:
        raise Transient(f"Kafka failed while reading: {type(error).__name__}; try again") from error


class _Reading:
    def __init__(
        self,
        aggregate: Aggregate[Any],
        aggregate_id: str,
        logs: LogReader,
        ring: KeyRing | None,
        progress: ProgressCallback,
    ) -> None:
        self._aggregate = aggregate
        self._id = aggregate_id
        self._key = aggregate_id.encode()
        self._logs = logs
        self._ring = ring
        self._progress = progress
        self._unreadable: list[str] = []
        self._records_read = 0

    async def timeline(
        self,
        outcomes: TopicPartition,
        events: TopicPartition,
        commands: TopicPartition,
        position: Position,
    ) -> Timeline:
        # In this order: what an outcome belongs to is there when it is read.
        formerly_decided, decided = await self._by_source(
            outcomes, position.outcomes_from, lambda record: parse_outcome(record.value or b"")
        )
        if self._ring is not None:
            await self._ring.ensure_loaded(events.partition, [self._key])
        formerly_happened, happened = await self._by_source(
            events, position.events_from, self._event
        )
        sent = {
            record.offset: CommandRecord(
                time_of(record), command_type_in(record), command_id_in(record)
            )
            async for record in self._records(commands)
        }
        former = entries_of({}, formerly_decided, formerly_happened)
        return Timeline(
            self._id,
            commands.partition,
            (*former, *entries_of(sent, decided, happened)),
            tuple(self._unreadable),
            self._records_read,
        )

    async def _by_source(
        self, partition: TopicPartition, start: int, read: Callable[[Record], Any]
    ) -> tuple[Mapping[int, list[Any]], Mapping[int, list[Any]]]:
        """Return what is read from the aggregate's records, by the offset of the command.

        First that of the records before `start`, whose commands were on a former topic.
        """
        former: dict[int, list[Any]] = defaultdict(list)
        found: dict[int, list[Any]] = defaultdict(list)
        async for record in self._records(partition):
            try:
                one = read(record)
            except Poison as poison:
                place = f"{name_of(record)} offset {record.offset}"
                self._unreadable.append(f"{place}: {poison}")
            else:
                by_source = former if record.offset < start else found
                by_source[one.source.offset].append(one)
        return former, found

    def _event(self, record: Record) -> EventRecord[Any]:
        keys = None
        if self._ring is not None and may_be_sealed(record.value):
            keys = self._ring.of(record.partition)
        return read_event(record, self._aggregate.events, keys)

    async def _records(self, partition: TopicPartition) -> AsyncIterator[Record]:
        end = (await self._logs.end_offsets([partition]))[partition]
        async for records in self._logs.read(partition, 0, end):
            self._records_read += len(records)
            self._progress(f"Reading {partition.topic}", records[-1].offset + 1, end)
            for record in records:
                if record.key == self._key:
                    yield record
