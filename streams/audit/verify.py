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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Generic, TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import NoSuchView, Transient
from streams.aggregate import Aggregate, TopicNames
from streams.audit.history import check_extra_documents
from streams.audit.partition import PartitionAudit
from streams.audit.partition_logs import PartitionLogs, Shelf, count_buckets
from streams.audit.report import CheckedRange, NotCaughtUp, Report
from streams.audit.view_records import ViewRecords
from streams.encryption.keys import master_keys
from streams.kafka import rights
from streams.kafka.dead_letters import VIEW
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import check_topics, partitions_of, topic_specs
from streams.logs import name_of
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.input_log import check_partitions, check_topic
from streams.state.recovery import last_position
from streams.state.store import Position
from streams.state.version import StateVersion, check_version
from streams.views.projection import View
from streams.views.reader import ViewReader, open_view
from streams.views.status import status_of

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
    await check_topics(settings, specs, rights.reader(names))
    partitions = [
        TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)
    ]
    try:
        async with open_logs(settings, partitions) as logs:
            id_ = await topic_id(settings, names.commands)
            checking = _Verification(settings, aggregate, names, logs, progress, id_)
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
        command_topic_id: str,
    ) -> None:
        self._settings = settings
        self._aggregate = aggregate
        self._names = names
        self._logs = logs
        self._progress = progress
        self._master = master_keys(settings)
        self._version = StateVersion.of(aggregate)
        self._command_topic_id = command_topic_id
        self._report = Report()
        self._done = self._total = 0

    async def run(self, view: View[Any] | None, deadline: float) -> Report:
        """Wait for the workers, check everything, and return the report."""
        started = time.monotonic()
        await self._wait_for_commands(deadline)
        view_ends = await self._logs.end_offsets(self._partitions(self._names.events))
        topics = (
            *(self._names.commands, self._names.outcomes, self._names.dead_commands),
            *(self._names.events, self._names.changelog),
        )
        numbers = range(self._settings.partitions)
        buckets, records = await count_buckets(self._logs, topics, numbers)
        self._total = 2 * records  # each is read, and then compared
        with ExitStack() as resources:
            found = None
            if view is not None:
                found = resources.enter_context(ViewRecords(view, len(numbers), buckets))
                async with open_view(self._settings, view, timeout=_REQUEST_TIMEOUT_S) as reader:
                    await self._wait_for_view(reader, view_ends, deadline)
                    await self._read_view(reader, found, view)
            for number in numbers:
                view_end = view_ends[TopicPartition(self._names.events, number)]
                await self._check_partition(number, found, view_end, buckets)
        if view is not None:
            await self._check_indices(view)
        ends = await self._logs.end_offsets(self._partitions(self._names.commands))
        self._report.seconds = round(time.monotonic() - started, 1)
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
        self, reader: ViewReader, ends: Mapping[TopicPartition, int], deadline: float
    ) -> None:
        """Wait until the serving index exists and has passed the last events before `ends`."""
        last = {tp.partition: await self._logs.last_record(tp, end) for tp, end in ends.items()}
        wanted = {number: one.offset + 1 if one else 0 for number, one in last.items()}

        async def missing() -> int:
            try:
                found = (await reader.checkpoints(wanted)).checkpoints
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

    async def _read_view(self, reader: ViewReader, found: ViewRecords, view: View[Any]) -> None:
        """Read all documents of the view, and the keys of its dead letters."""
        await reader.refresh()
        documents, total = 0, await reader.count()
        async for document in reader.scan():
            found.add_document(document)
            documents += 1
            if documents % 1000 == 0:
                self._progress("Reading the view", documents, total)
        self._report.documents = documents
        ends = await self._logs.end_offsets(self._partitions(self._names.dead_views))
        for partition, end in ends.items():
            async for records in self._logs.read(partition, 0, end):
                for record in records:
                    if (VIEW, view.name.encode()) in record.headers:
                        found.add_dead_letter(partition.partition, record.key or b"")

    async def _check_partition(
        self, number: int, view: ViewRecords | None, view_end: int, buckets: int
    ) -> None:
        def check(stored: Position | None) -> None:
            self._check_topic(number, stored)
            check_version(TP(self._names.commands, number), stored, self._version)

        with PartitionLogs(
            self._logs,
            self._names,
            number,
            buckets=buckets,
            master=self._master,
            advance=self._advance,
        ) as logs:
            frozen, kept = await logs.read(check, view_end=view_end)
            for bucket in logs.buckets:
                documents = None if view is None else view.documents(number, bucket)
                audit = PartitionAudit(
                    self._aggregate,
                    self._names,
                    number,
                    frozen,
                    view=documents,
                    report=self._report,
                    keys=logs.keys(bucket),
                )
                audit.add_commands(logs.records(Shelf.COMMANDS, bucket))
                audit.add_outcomes(logs.records(Shelf.OUTCOMES, bucket))
                audit.add_dead_letters(logs.records(Shelf.DEAD_LETTERS, bucket))
                audit.add_events(logs.records(Shelf.EVENTS, bucket))
                audit.conclude(logs.states(bucket), kept)
                if documents is not None:
                    check_extra_documents(documents, self._report)
        checked = CheckedRange(number, kept.start, max(kept.start, frozen.position))
        self._report.ranges.append(checked)

    async def _check_indices(self, view: View[Any]) -> None:
        """Add the status of the view's indices to the report; check the tallies of several."""
        found = await status_of(self._settings, view, check=False, progress=self._progress)
        if len(found) > 1:
            found = await status_of(self._settings, view, check=True, progress=self._progress)
        self._report.indices = found
        for index in found:
            if index.complete is False:
                self._report.findings["I4"].violated(f"{index.name} does not add up to its events")

    def _advance(self, records: int) -> None:
        self._done += records
        self._progress("Checking", self._done, self._total)


def _undecided_message(source: TopicPartition, left: int) -> str:
    return (
        f"{name_of(source)}: {left} positions were not decided in time; is a "
        "command worker running (`cqrs worker commands`)?"
    )
