"""Checks the invariants of an aggregate from its topics and its view alone.

First it waits until the workers have decided all commands that exist at the start, then until the
view has the events that exist by then. Then it reads and checks one partition after the other, up
to the position that its state table has reached meanwhile. New commands may arrive all the time.
The oracle is the fold of the events.

It is a long module because it is one list: what is read, in the order in which it has to be read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import NoSuchView, Transient
from streams.aggregate import Aggregate, TopicNames
from streams.audit.folds import Frozen, ViewDocuments
from streams.audit.history import check_extra_documents
from streams.audit.partition import PartitionAudit
from streams.audit.report import NotCaughtUp, Report
from streams.encryption.cipher import is_sealed_state
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.dead_letters import VIEW
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.rights import reader
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import check_topics, partitions_of, topic_specs
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.input_log import check_partitions, check_topic
from streams.state.recovery import last_position
from streams.state.store import MemoryStore, Position
from streams.state.version import StateVersion, check_version
from streams.views.event_reader import sealed_ids
from streams.views.projection import View
from streams.views.status import status_of
from streams.views.store import ViewStore, open_view_store

S = TypeVar("S")

_POLL_INTERVAL_S = 0.2
_REQUEST_TIMEOUT_S = 60.0


async def verify(
    settings: Settings,
    aggregate: Aggregate[S],
    view: View[Any] | None = None,
    *,
    timeout: float = 60,
    progress: ProgressCallback = no_progress,
) -> Report:
    """Check all invariants for everything that exists now.

    Args:
        settings: Contains the addresses of the servers.
        aggregate: Kind of the aggregates to check.
        view: View to compare with the events; None to leave I4 out.
        timeout: Seconds that the workers get to catch up with what exists now.
        progress: Receives how far waiting, reading and checking are.

    Raises:
        NotCaughtUp: The workers did not catch up in time.
        Fatal: A server does not answer, a topic or the index is missing, or the master key is
            missing or wrong. Or the command topic is not the one that the states were made from,
            or a program of another state version made them.
        Transient: A server failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    specs = topic_specs(settings, names)
    await check_topics(settings, specs, reader(names))
    partitions = [
        TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)
    ]
    try:
        async with (
            open_logs(settings, partitions) as logs,
            # Also keeps keys that are destroyed meanwhile: older records are compared, too.
            open_key_ring(settings, names, keep_destroyed=True) as ring,
        ):
            id_ = await topic_id(settings, names.commands)
            checking = _Verification(settings, aggregate, names, logs, progress, ring, id_)
            return await checking.run(view, time.monotonic() + timeout)
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while checking: {type(error).__name__}; try again"
        ) from error


class _Verification(Generic[S]):
    """One run of `verify`."""

    def __init__(
        self,
        settings: Settings,
        aggregate: Aggregate[S],
        names: TopicNames,
        logs: LogReader,
        progress: ProgressCallback,
        ring: KeyRing | None,
        command_topic_id: str,
    ) -> None:
        self._settings = settings
        self._aggregate = aggregate
        self._names = names
        self._logs = logs
        self._progress = progress
        self._ring = ring
        self._version = StateVersion.of(aggregate)
        self._command_topic_id = command_topic_id
        self._report = Report()
        self._done = self._total = 0

    async def run(self, view: View[Any] | None, deadline: float) -> Report:
        """Wait for the workers, check everything, and return the report."""
        await self._wait_for_commands(deadline)
        view_ends = await self._logs.end_offsets(self._partitions(self._names.events))
        documents = None
        if view is not None:
            async with open_view_store(self._settings, view, timeout=_REQUEST_TIMEOUT_S) as store:
                await self._wait_for_view(store, view_ends, deadline)
                documents = await self._read_view(view, store)
        await self._measure()
        for number in range(self._settings.partitions):
            view_end = view_ends[TopicPartition(self._names.events, number)]
            await self._check_partition(number, documents, view_end)
        if view is not None and documents is not None:
            check_extra_documents(documents, self._report)
            await self._check_indices(view)
        ends = await self._logs.end_offsets(self._partitions(self._names.commands))
        self._report.lag = sum(ends.values()) - sum(part.end for part in self._report.ranges)
        return self._report

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return partitions_of(self._settings, topic)

    async def _wait_for_commands(self, deadline: float) -> None:
        """Wait until the state tables have passed the last command that exists now."""
        ends = await self._logs.end_offsets(self._partitions(self._names.commands))
        for source, end in ends.items():
            last = await self._logs.last_record(source, end)
            if last is not None:
                await self._wait(
                    partial(self._undecided, source, last.offset),
                    deadline,
                    partial(_undecided_message, source),
                )

    async def _undecided(self, source: TopicPartition, offset: int) -> int:
        """Return how many offsets of a command partition, up to this one, are not decided yet."""
        return max(0, offset + 1 - await self._stored_position(source.partition))

    async def _stored_position(self, number: int) -> int:
        """Return the newest position in the changelog of a partition; 0 if there is none."""
        stored = await last_position(self._logs, self._names, number)
        self._check_topic(number, stored)
        return 0 if stored is None else stored.offset

    def _check_topic(self, number: int, stored: Position | None) -> None:
        tp = TP(self._names.commands, number)
        check_topic(tp, stored, self._command_topic_id)
        check_partitions(tp, stored, (), self._settings.partitions)

    async def _wait_for_view(
        self, store: ViewStore, ends: Mapping[TopicPartition, int], deadline: float
    ) -> None:
        """Wait until the serving index exists and has passed the last events before `ends`."""
        last = {tp.partition: await self._logs.last_record(tp, end) for tp, end in ends.items()}
        wanted = {number: one.offset + 1 if one else 0 for number, one in last.items()}

        async def missing() -> int:
            try:
                found = (await store.checkpoints(wanted)).checkpoints
            except NoSuchView:  # not complete yet
                if not any(wanted.values()) and time.monotonic() > deadline:
                    raise
                return sum(wanted.values()) or 1
            return sum(
                max(0, position - found[number].position) for number, position in wanted.items()
            )

        await self._wait(
            missing,
            deadline,
            lambda left: (
                f"{self._names.events}: {left} positions are not in the view in time; is a view "
                "worker running (`cqrs worker views`)?"
            ),
        )

    async def _wait(
        self,
        missing: Callable[[], Awaitable[int]],
        deadline: float,
        message: Callable[[int], str],
    ) -> None:
        """Wait until `missing` returns 0.

        Raises:
            NotCaughtUp: It does not at the deadline; with the `message` about what it returned.
        """
        while left := await missing():
            self._progress("Waiting for the workers", 0, left)
            if time.monotonic() > deadline:
                raise NotCaughtUp(message(left))
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def _read_view(self, view: View[Any], store: ViewStore) -> ViewDocuments:
        """Read all documents of the view, and the aggregates of its dead letters."""
        documents = ViewDocuments(view.projection.fold)
        await store.refresh()
        async for document in store.scan():
            documents.add(document)
            if len(documents.documents) % 1000 == 0:
                self._progress("Reading the view", len(documents.documents), 0)
        ends = await self._logs.end_offsets(self._partitions(self._names.dead_views))
        for partition, end in ends.items():
            async for records in self._logs.read(partition, 0, end):
                documents.dead_lettered.update(
                    (record.key or b"").decode(errors="replace")
                    for record in records
                    if (VIEW, view.name.encode()) in record.headers
                )
        self._report.documents = len(documents.documents)
        return documents

    async def _check_partition(
        self, number: int, documents: ViewDocuments | None, view_end: int
    ) -> None:
        names = self._names
        commands, changelog, outcomes, dead_letters, events = (
            TopicPartition(topic, number)
            for topic in (
                names.commands,
                names.changelog,
                names.outcomes,
                names.dead_commands,
                names.events,
            )
        )
        if self._ring is not None:
            # Before all else: if a key is missing then, the event that destroyed it is read below.
            await self._ring.catch_up(number)
        self._logs.consumer.assign([changelog])
        # Up to the last stable offset, which is never inside a transaction.
        stable = (await self._logs.consumer.end_offsets([changelog]))[changelog]
        state = await restore(self._logs.consumer, changelog, MemoryStore(), stable)
        stored = state.position(TP(*commands))
        self._check_topic(number, stored)
        check_version(TP(*commands), stored, self._version)
        position = stored or Position(0)
        # Everything that the commands below the position caused is before these ends: it was
        # written before the position was committed.
        ends = await self._logs.end_offsets([outcomes, dead_letters, events])
        audit = PartitionAudit(
            self._aggregate,
            names,
            number,
            Frozen(position.offset, view_end, position.events_from),
            view=documents,
            report=self._report,
            keys=None if self._ring is None else self._ring.of(number),
        )
        async for records in self._read(commands, 0, position.offset):
            audit.add_commands(records)
        async for records in self._read(outcomes, position.outcomes_from, ends[outcomes]):
            audit.add_outcomes(records)
        async for records in self._read(
            dead_letters, position.dead_letters_from, ends[dead_letters]
        ):
            audit.add_dead_letters(records)
        async for records in self._read(events, 0, ends[events]):
            if self._ring is not None:
                await self._ring.ensure_loaded(number, sealed_ids(records))
            audit.add_events(records)
        if self._ring is not None:
            sealed = {key for key, value in state.records.items() if is_sealed_state(value)}
            await self._ring.ensure_loaded(number, sealed)
        begins = await self._logs.begin_offsets([commands, outcomes, dead_letters])
        audit.conclude(
            state.records,
            commands_from=begins[commands],
            outcomes_from=max(0, begins[outcomes] - position.outcomes_from),
            dead_letters_from=max(0, begins[dead_letters] - position.dead_letters_from),
        )

    async def _check_indices(self, view: View[Any]) -> None:
        """Add the status of the view's indices to the report; check the tallies of several."""
        found = await status_of(self._settings, view, check=False, progress=self._progress)
        if len(found) > 1:
            found = await status_of(self._settings, view, check=True, progress=self._progress)
        self._report.indices = found
        for index in found:
            if index.complete is False:
                self._report.findings["I4"].violated(f"{index.name} does not add up to its events")

    async def _read(
        self, partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Any]]:
        async for records in self._logs.read(partition, start, end):
            self._done += len(records)
            self._progress("Checking", self._done, self._total)
            yield records

    async def _measure(self) -> None:
        """Add up how many offsets there are to read, for the progress."""
        names = self._names
        for topic in (names.commands, names.outcomes, names.dead_commands, names.events):
            partitions = self._partitions(topic)
            begins, ends = (
                await self._logs.begin_offsets(partitions),
                await self._logs.end_offsets(partitions),
            )
            self._total += sum(ends.values()) - sum(begins.values())


def _undecided_message(source: TopicPartition, left: int) -> str:
    return (
        f"{source.topic}[{source.partition}]: {left} positions were not decided in time; is a "
        "command worker running (`cqrs worker commands`)?"
    )
