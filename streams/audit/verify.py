"""Checks the invariants of an aggregate from its topics and its view alone.

What there is at the start is frozen: the commands on their topic, then the events. Once the workers
have reached it, every partition is read and checked by itself, at the position where its state
table stands then; commands may go on coming meanwhile. The oracle is the fold of the events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import orjson
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import NoSuchView, Transient
from streams.aggregate import Aggregate, TopicNames
from streams.audit.history import ViewDocuments, check_extra_documents
from streams.audit.partition import PartitionAudit
from streams.audit.report import NotCaughtUp, Report
from streams.encryption.cipher import is_sealed_state
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.dead_letters import VIEW
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.topics import check_topics, partitions_of, topic_specs
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.store import MemoryStore, position_key
from streams.views.event_reader import sealed_ids
from streams.views.projection import View
from streams.views.status import status_of
from streams.views.store import ViewStore, open_view_store

S = TypeVar("S")

_POLL = 0.2
_VIEW_TIMEOUT = 60.0


async def verify(
    settings: Settings,
    aggregate: Aggregate[S],
    view: View[Any] | None = None,
    *,
    timeout: float = 60,
    progress: ProgressCallback = no_progress,
) -> Report:
    """Check everything that there is now; I4 only with a view.

    Args:
        settings: where the servers are.
        aggregate: whose topics these are.
        view: what to hold against the events.
        timeout: seconds that the workers get to reach what there is now.
        progress: is told.

    Raises:
        NotCaughtUp: the workers did not reach it in time.
        Fatal: a server does not answer, or a topic or the index is missing.
        Transient: a server failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    specs = topic_specs(settings, names)
    await check_topics(settings, specs)
    partitions = [
        TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)
    ]
    try:
        async with (
            open_logs(settings, partitions) as logs,
            # What is compared was written with and without a key that is destroyed meanwhile.
            open_key_ring(settings, names, keep_destroyed=True) as ring,
        ):
            checking = _Verification(settings, aggregate, names, logs, progress, ring)
            return await checking.run(view, time.monotonic() + timeout)
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while checking: {type(error).__name__}; try again"
        ) from error


class _Verification(Generic[S]):
    def __init__(
        self,
        settings: Settings,
        aggregate: Aggregate[S],
        names: TopicNames,
        logs: LogReader,
        progress: ProgressCallback,
        ring: KeyRing | None,
    ) -> None:
        self._settings = settings
        self._aggregate = aggregate
        self._names = names
        self._logs = logs
        self._progress = progress
        self._ring = ring
        self._report = Report()
        self._done = self._total = 0

    async def run(self, view: View[Any] | None, deadline: float) -> Report:
        """All of it, in order."""
        await self._wait_for_commands(deadline)
        view_ends = await self._logs.end_offsets(self._partitions(self._names.events))
        documents = None
        if view is not None:
            async with open_view_store(self._settings, view, timeout=_VIEW_TIMEOUT) as store:
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
        """Wait until the state tables stand behind the last command that there is now."""
        ends = await self._logs.end_offsets(self._partitions(self._names.commands))
        for source, end in ends.items():
            last = await self._logs.last_record(source, end)
            if last is None:
                continue

            async def left(source: TopicPartition = source, offset: int = last.offset) -> int:
                return max(0, offset + 1 - await self._stored_position(source.partition))

            await self._wait(
                left,
                deadline,
                f"{source.topic}[{source.partition}]: {{}} positions were not decided in time; "
                "is a command worker running (`cqrs worker commands`)?",
            )

    async def _stored_position(self, number: int) -> int:
        """The newest position record in the changelog."""
        changelog = TopicPartition(self._names.changelog, number)
        key = position_key(TP(self._names.commands, number))
        end = (await self._logs.end_offsets([changelog]))[changelog]
        record = await self._logs.last_record(changelog, end, lambda record: record.key == key)
        return 0 if record is None else int(orjson.loads(record.value)["position"])

    async def _wait_for_view(
        self, store: ViewStore, ends: Mapping[TopicPartition, int], deadline: float
    ) -> None:
        """Wait until the index that people read is there, and behind the last events."""
        last = {tp.partition: await self._logs.last_record(tp, end) for tp, end in ends.items()}
        wanted = {one: record.offset + 1 if record else 0 for one, record in last.items()}

        async def missing() -> int:
            try:
                found = (await store.checkpoints(wanted)).checkpoints
            except NoSuchView:  # not complete yet
                if not any(wanted.values()) and time.monotonic() > deadline:
                    raise
                return sum(wanted.values()) or 1
            return sum(max(0, position - found[one].position) for one, position in wanted.items())

        await self._wait(
            missing,
            deadline,
            f"{self._names.events}: {{}} positions are not in the view in time; is a view "
            "worker running (`cqrs worker views`)?",
        )

    async def _wait(
        self, missing: Callable[[], Awaitable[int]], deadline: float, line: str
    ) -> None:
        while left := await missing():
            self._progress("Waiting for the workers", 0, left)
            if time.monotonic() > deadline:
                raise NotCaughtUp(line.format(left))
            await asyncio.sleep(_POLL)

    async def _read_view(self, view: View[Any], store: ViewStore) -> ViewDocuments:
        """All documents as they are now, and whose events the view's dead letters hold."""
        documents = ViewDocuments(view.projection.fold)
        await store.refresh()
        async for document in store.scan():
            documents.add(document)
            if len(documents.documents) % 1000 == 0:
                self._progress("Reading the view", len(documents.documents), 0)
        dead = await self._logs.end_offsets(self._partitions(self._names.dead_views))
        for partition, end in dead.items():
            async for records in self._logs.read(partition, 0, end):
                documents.dead.update(
                    (record.key or b"").decode()
                    for record in records
                    if (VIEW, view.name.encode()) in record.headers
                )
        self._report.documents = len(documents.documents)
        return documents

    async def _check_partition(
        self, number: int, documents: ViewDocuments | None, view_end: int
    ) -> None:
        names = self._names
        commands, changelog, outcomes, letters, events = (
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
            # Before anything else: the event that destroyed a key is read then, too.
            await self._ring.catch_up(number)
        self._logs.consumer.assign([changelog])
        # Up to the last stable offset, which never is in the midst of a transaction.
        stable = (await self._logs.consumer.end_offsets([changelog]))[changelog]
        state = await restore(self._logs.consumer, changelog, MemoryStore(), stable)
        position = state.position(TP(*commands)) or 0
        # All that came of the commands below that position was written before it was committed.
        ends = await self._logs.end_offsets([outcomes, letters, events])
        audit = PartitionAudit(
            self._aggregate,
            names,
            number,
            position=position,
            view_end=view_end,
            view=documents,
            report=self._report,
            keys=None if self._ring is None else self._ring.of(number),
        )
        async for records in self._read(commands, position):
            audit.add_commands(records)
        async for records in self._read(outcomes, ends[outcomes]):
            audit.add_outcomes(records)
        async for records in self._read(letters, ends[letters]):
            audit.add_dead_letters(records)
        async for records in self._read(events, ends[events]):
            if self._ring is not None:
                await self._ring.ensure_loaded(number, sealed_ids(records))
            audit.add_events(records)
        if self._ring is not None:
            sealed = {key for key, value in state.records.items() if is_sealed_state(value)}
            await self._ring.ensure_loaded(number, sealed)
        begins = await self._logs.begin_offsets([commands, outcomes, letters])
        audit.conclude(
            state.records,
            commands_from=begins[commands],
            outcomes_from=begins[outcomes],
            letters_from=begins[letters],
        )

    async def _check_indices(self, view: View[Any]) -> None:
        """What the view's indices are; those that nobody reads have to add up at least."""
        found = await status_of(self._settings, view, check=False, progress=self._progress)
        if len(found) > 1:
            found = await status_of(self._settings, view, check=True, progress=self._progress)
        self._report.indices = found
        for one in found:
            if one.complete is False:
                self._report.findings["I4"].violated(f"{one.name} does not add up to its events")

    async def _read(self, partition: TopicPartition, end: int) -> AsyncIterator[Sequence[Any]]:
        async for records in self._logs.read(partition, 0, end):
            self._done += len(records)
            self._progress("Checking", self._done, self._total)
            yield records

    async def _measure(self) -> None:
        """How much there is to read, for the progress."""
        names = self._names
        for topic in (names.commands, names.outcomes, names.dead_commands, names.events):
            partitions = self._partitions(topic)
            begins, ends = (
                await self._logs.begin_offsets(partitions),
                await self._logs.end_offsets(partitions),
            )
            self._total += sum(ends.values()) - sum(begins.values())
