"""Making a view anew while the one that people read goes on, and moving them from one to the other.

A rebuild makes an index of this program's definition and projects into it from the first event, by
a reader and a position of its own, past the workers. Then it
- adds up what the index has, and holds that against the events (`Tally`),
- has the workers follow the index, each chunk going into the old and the new one from then on,
- and moves the alias as soon as the new index is nowhere behind the one that people read.

Stopped anywhere it goes on where it was when it is started again: how far the index is stands in
the index, and what it is stands in its aliases.
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

_REQUEST_TIMEOUT_S = 60.0  # of one request to Elasticsearch
_POLL_INTERVAL_S = 0.2
_FETCH_WAIT_MS = 1000


class Rebuild(Generic[E]):
    """One rebuild of a view; `run` does all of it."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        timeout: float,
        progress: ProgressCallback,
    ) -> None:
        self._settings = settings
        self._client = client
        self._view = view
        self._progress = progress
        self._names = TopicNames.of(settings, view.aggregate)
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._numbers = range(settings.partitions)
        self._timeout = timeout

    async def run(self) -> IndexState:
        """Make the new index and have people read it.

        Returns:
            The index that they read now.

        Raises:
            Fatal: What was made does not add up, or a server says no.
            Transient: A server failed; start it again, and it goes on where it was.
        """
        state = await self._index_to_build()
        if not state.followed:
            store = self._indices.store(state.name)
            await self._load(store)
            await self._indices.finish_loading(state.name)
            await self._check(store)
            await self._load(store)  # what came meanwhile: the workers have to do the rest
            await self._indices.follow(state.name)
        deadline = time.monotonic() + self._timeout
        await self._wait_for_workers(deadline)
        await cut_over(self._settings, self._view, self._indices, state, deadline, self._progress)
        return state

    async def _index_to_build(self) -> IndexState:
        """A new index, or the one that an earlier run has left."""
        states = await self._indices.all()
        newest = states[-1] if states else None
        if newest is not None and not newest.served and self._indices.is_current(newest):
            return newest
        for state in states:
            if state.state == "building":
                await self._indices.drop(state.name)  # left by an earlier run of another program
        number = newest.number + 1 if newest else 1
        wanted = await last_positions(self._settings, self._names.events)
        await self._indices.create(number, wanted, followed=False)
        return next(one for one in await self._indices.all() if one.number == number)

    async def _load(self, store: ViewStore) -> None:
        """Project everything that there is, and what comes meanwhile, until little is left."""
        projector = Projector(
            store,
            self._view.projection,
            cached_documents=self._settings.view_cache_documents,
        )
        cluster = await cluster_id(self._settings)
        consuming = new_consumer(self._settings, max_poll_records=None)
        async with (
            started(consuming, self._settings) as consumer,
            started(new_producer(self._settings), self._settings) as producer,
            open_event_reader(self._settings, self._names, self._view.events) as reader,
        ):
            partitions = [TopicPartition(self._names.events, number) for number in self._numbers]
            consumer.assign(partitions)
            letters = ViewDeadLetters(producer, self._names.dead_views, self._view.name)
            writers = {
                number: PartitionWriter(
                    store, projector, self._view.projection, letters, number, cluster
                )
                for number in self._numbers
            }
            for partition in partitions:
                position = await writers[partition.partition].start()
                await self._check_begin(consumer, partition, position)
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
        """To its end. While one is read and waits, Elasticsearch has documents of the others."""
        writer, end = writers[partition.partition], ends[partition.partition]
        self._say_how_far(writers, ends)
        while writer.checkpoint.position < end:
            found = await consumer.getmany(partition, timeout_ms=_FETCH_WAIT_MS)
            for records in found.values():
                await self._project(reader, writer, records)
            self._say_how_far(writers, ends)

    def _say_how_far(
        self, writers: Mapping[int, PartitionWriter[E]], ends: Mapping[int, int]
    ) -> None:
        done = sum(min(writers[number].checkpoint.position, end) for number, end in ends.items())
        self._progress("Projecting events", done, sum(ends.values()))

    async def _project(
        self, reader: EventReader[E], writer: PartitionWriter[E], records: list[Record]
    ) -> None:
        events, sources = await writer.letters.decode(reader, records)
        await writer.write(events, sources, records[-1].offset + 1)

    async def _check_begin(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, position: int
    ) -> None:
        begin = (await consumer.beginning_offsets([partition]))[partition]
        if begin > position:
            raise Fatal(
                f"{partition.topic}[{partition.partition}] begins at {begin}: the events before "
                "are gone, and a view without them would be wrong; restore the topic from a backup"
            )

    async def _check(self, store: ViewStore) -> None:
        """Hold the documents of the index, which nobody else writes to, against the events."""
        tallies = await tally_documents(self._view, store, len(self._numbers), self._progress)
        progress = (await store.checkpoints(self._numbers)).checkpoints
        for number, found in enumerate(tallies):
            expected = progress[number].tally
            if found != expected:
                raise Fatal(
                    f"{store.name} is not complete: of partition {number} its documents hold "
                    f"{found.events} events (checksum {found.checksum:016x}) where it was given "
                    f"{expected.events} ({expected.checksum:016x}); something else writes to it, "
                    f"or Elasticsearch has lost some: `cqrs views prune {self._view.name}` throws "
                    "it away, then rebuild again"
                )

    async def _wait_for_workers(self, deadline: float) -> None:
        """Wait until somebody brings the new index up to date from here on."""
        group = self._settings.namespace + self._view.group
        self._progress("Waiting for a view worker", 0, 0)
        async with admin_client(self._settings) as admin:
            while not await _has_members(admin, group):
                if time.monotonic() > deadline:
                    raise Fatal(
                        f"nobody follows the new index of {self._view.name}, and without that it "
                        "would be old at once: start a view worker of this program (`cqrs worker "
                        f"{self._view.role}`), then run this again; it goes on where it is"
                    )
                await asyncio.sleep(_POLL_INTERVAL_S)


async def rebuild(
    settings: Settings, view: View[E], *, timeout: float, progress: ProgressCallback
) -> IndexState:
    """See `Rebuild`; `timeout` are the seconds that the workers get to take the index over."""
    try:
        async with connect(settings, timeout=_REQUEST_TIMEOUT_S) as client:
            return await Rebuild(settings, client, view, timeout, progress).run()
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while rebuilding: {type(error).__name__}; start it again"
        ) from error


async def _has_members(admin: AIOKafkaAdminClient, group: str) -> bool:
    """Whether a consumer group has members now."""
    for response in await admin.describe_consumer_groups([group]):
        for _error, _group, _state, _type, _protocol, members, *_ in response.groups:
            if members:
                return True
    return False
