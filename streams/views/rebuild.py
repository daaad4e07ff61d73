"""Rebuilds a view while the old index serves queries, and then moves the alias to the new one.

A rebuild creates an index with this program's definition and projects all events into it, with its
own reader and checkpoints, independently of the workers. Then it
- compares the tally of the documents with that of the events (`Tally`),
- lets the workers follow the index: from then on each chunk goes into the old and the new one,
- and moves the alias once the new index is in no partition behind the serving one.

A rebuild that was stopped at any point continues from there when it is started again: the index
contains its checkpoints, and its aliases tell its state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Generic, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from elasticsearch import AsyncElasticsearch

from models.errors import Fatal, Transient
from models.messages import Event
from streams.aggregate import TopicNames
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client, cluster_id, new_consumer, new_producer, started
from streams.kafka.log_reader import last_positions
from streams.kafka.records import Record
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.cutover import cut_over
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import EventReader, open_event_reader
from streams.views.indices import IndexState, ViewIndices
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.status import tally_documents
from streams.views.store import ViewStore
from streams.views.writer import PartitionWriter

E = TypeVar("E", bound=Event)

_REQUEST_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.2
_FETCH_WAIT_MS = 1000


class Rebuild(Generic[E]):
    """One rebuild of a view; call `run` once."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        timeout: float,
        progress: ProgressCallback,
    ) -> None:
        """Prepare a rebuild; the arguments are those of `rebuild`."""
        self._settings = settings
        self._client = client
        self._view = view
        self._progress = progress
        self._names = TopicNames.of(settings, view.aggregate)
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._numbers = range(settings.partitions)
        self._timeout = timeout

    async def run(self) -> IndexState:
        """Build the new index and let it serve queries.

        Returns:
            The index that serves queries now.

        Raises:
            Fatal: The index is not complete, no worker follows it, or a server refuses.
            Transient, KafkaError: A server failed; a new run continues from there.
        """
        state = await self._index_to_build()
        if not state.followed:
            store = self._indices.store(state.name)
            await self._load(store)
            await self._indices.finish_loading(state.name)
            await self._check(store)
            await self._load(store)  # events of the meantime, so that little is left to the workers
            await self._indices.follow(state.name)
        deadline = time.monotonic() + self._timeout
        await self._wait_for_workers(deadline)
        await cut_over(self._settings, self._view, self._indices, state, deadline, self._progress)
        return state

    async def _index_to_build(self) -> IndexState:
        """Return a new index, or the one that an earlier run left unfinished."""
        states = await self._indices.all()
        newest = states[-1] if states else None
        if newest is not None and not newest.served and self._indices.is_current(newest):
            return newest
        for state in states:
            if state.state == "building":
                await self._indices.drop(state.name)  # left by an earlier rebuild
        number = newest.number + 1 if newest else 1
        wanted = await last_positions(self._settings, self._names.events)
        await self._indices.create(number, wanted, followed=False)
        return next(state for state in await self._indices.all() if state.number == number)

    async def _load(self, store: ViewStore) -> None:
        """Project all events from the checkpoints to the ends that the partitions have now."""
        projector = Projector(
            store,
            self._view.projection,
            cached_documents=self._settings.view_cache_documents,
        )
        cluster = await cluster_id(self._settings)
        unstarted = new_consumer(self._settings, max_poll_records=None)
        async with (
            started(unstarted, self._settings) as consumer,
            started(new_producer(self._settings), self._settings) as producer,
            open_event_reader(self._settings, self._names, self._view.events) as reader,
        ):
            partitions = [TopicPartition(self._names.events, number) for number in self._numbers]
            consumer.assign(partitions)
            dead_letters = ViewDeadLetters(producer, self._names.dead_views, self._view.name)
            writers = {
                number: PartitionWriter(
                    store, projector, self._view.projection, dead_letters, number, cluster
                )
                for number in self._numbers
            }
            for partition in partitions:
                position = await writers[partition.partition].start()
                await self._check_not_expired(consumer, partition, position)
                consumer.seek(partition, position)
            ends = await last_positions(self._settings, self._names.events)
            await gather_or_cancel(
                *(self._load_partition(tp, consumer, reader, writers, ends) for tp in partitions)
            )

    async def _load_partition(
        self,
        partition: TopicPartition,
        consumer: AIOKafkaConsumer,
        reader: EventReader[E],
        writers: Mapping[int, PartitionWriter[E]],
        ends: Mapping[int, int],
    ) -> None:
        """Project one partition to its end.

        The partitions run at the same time: one is read while Elasticsearch indexes another.
        """
        writer, end = writers[partition.partition], ends[partition.partition]
        self._report_progress(writers, ends)
        while writer.checkpoint.position < end:
            found = await consumer.getmany(partition, timeout_ms=_FETCH_WAIT_MS)
            for records in found.values():
                await self._project(reader, writer, records)
            self._report_progress(writers, ends)

    def _report_progress(
        self, writers: Mapping[int, PartitionWriter[E]], ends: Mapping[int, int]
    ) -> None:
        done = sum(min(writers[number].checkpoint.position, end) for number, end in ends.items())
        self._progress("Projecting events", done, sum(ends.values()))

    async def _project(
        self, reader: EventReader[E], writer: PartitionWriter[E], records: list[Record]
    ) -> None:
        events, sources = await writer.dead_letters.decode(reader, records)
        await writer.write(events, sources, records[-1].offset + 1)

    async def _check_not_expired(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, position: int
    ) -> None:
        """Check that Kafka still has the events from `position` on.

        Raises:
            Fatal: The first of them are gone.
        """
        begin = (await consumer.beginning_offsets([partition]))[partition]
        if begin > position:
            raise Fatal(
                f"{partition.topic}[{partition.partition}] begins at {begin}: the events before "
                "are gone, and a view without them would be wrong; restore the topic from a backup"
            )

    async def _check(self, store: ViewStore) -> None:
        """Compare the documents of the index, which nothing else writes to, with its checkpoints.

        Raises:
            Fatal: Their tallies differ.
        """
        tallies = await tally_documents(self._view, store, len(self._numbers), self._progress)
        checkpoints = (await store.checkpoints(self._numbers)).checkpoints
        for number, found in enumerate(tallies):
            expected = checkpoints[number].tally
            if found != expected:
                raise Fatal(
                    f"{store.name} is not complete: of partition {number} its documents contain "
                    f"{found.events} events (checksum {found.checksum:016x}) where it was given "
                    f"{expected.events} ({expected.checksum:016x}); something else writes to it, "
                    f"or Elasticsearch has lost some: `cqrs views prune {self._view.name}` deletes "
                    "it, then rebuild again"
                )

    async def _wait_for_workers(self, deadline: float) -> None:
        """Wait until a worker of this definition runs, which keeps the new index up to date.

        Raises:
            Fatal: None runs at the deadline, a time of `time.monotonic`.
        """
        group = self._settings.namespace + self._view.group
        self._progress("Waiting for a view worker", 0, 0)
        async with admin_client(self._settings) as admin:
            while not await _has_members(admin, group):
                if time.monotonic() > deadline:
                    raise Fatal(
                        f"no worker follows the new index of {self._view.name}, so it would be "
                        "out of date at once: start a view worker of this program (`cqrs worker "
                        f"{self._view.role}`), then run this again; it continues from here"
                    )
                await asyncio.sleep(_POLL_INTERVAL_S)


async def rebuild(
    settings: Settings, view: View[E], *, timeout: float, progress: ProgressCallback
) -> IndexState:
    """Rebuild a view, as the module describes.

    Args:
        settings: Contains the addresses of the servers.
        view: The view.
        timeout: Seconds that the workers get to take over the new index.
        progress: Receives how far loading, checking and catching up are.

    Returns:
        The index that serves queries now.

    Raises:
        Fatal: The index is not complete, no worker follows it, or a server refuses.
        Transient: A server failed; a new run continues from there.
    """
    try:
        async with connect(settings, timeout=_REQUEST_TIMEOUT_S) as client:
            return await Rebuild(settings, client, view, timeout, progress).run()
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while rebuilding: {type(error).__name__}; start it again"
        ) from error


async def _has_members(admin: AIOKafkaAdminClient, group: str) -> bool:
    """Return whether a consumer group has members now."""
    for response in await admin.describe_consumer_groups([group]):
        for _error, _group, _state, _type, _protocol, members, *_ in response.groups:
            if members:
                return True
    return False
