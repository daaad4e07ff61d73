"""Writes one partition of the event topic into one index, chunk by chunk.

A chunk's documents are written first and then the checkpoint, so the index has everything before
its checkpoint. A worker or a rebuild always continues from there. Events that Elasticsearch refuses
for good are dead letters before the checkpoint passes them. So are those whose document no index
can have, and these are nowhere else: not in a document, and not in the tally.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Generic, TypeVar

from models.errors import Fatal, Poison
from models.messages import Event, EventRecord
from streams import metrics
from streams.kafka.records import Record
from streams.views.checkpoint import Checkpoint, IndexChanged, can_be_document
from streams.views.dead_letters import ViewDeadLetters
from streams.views.projection import Projection
from streams.views.projector import Projected, Projector, RefusedEvents
from streams.views.situation import EventLog
from streams.views.store import ViewStore

E = TypeVar("E", bound=Event)

_NO_ID = "the id of a document has 1 to 512 bytes in UTF-8 and does not begin with ' progress '"


class PartitionWriter(Generic[E]):
    """Writes one partition's events into one index, and tracks its checkpoint.

    No other writer may use this partition of the same projector.
    """

    def __init__(
        self,
        store: ViewStore,
        projector: Projector[E],
        projection: Projection[E],
        dead_letters: ViewDeadLetters,
        partition: int,
        log: EventLog,
    ) -> None:
        """Create a writer; call `start` before `write`.

        Args:
            store: The index.
            projector: Projects into that index.
            projection: Projection of the view.
            dead_letters: Takes the events of documents that Elasticsearch refuses.
            partition: Partition of the event topic.
            log: The event topic.
        """
        self._store = store
        self._projector = projector
        self._projection = projection
        self._partition = partition
        self._log = log
        self._seconds = metrics.VIEW_CHUNK_SECONDS.labels(store.name)
        self._counters = [  # in the order of `Projected`
            metrics.VIEW_EVENTS.labels(store.name, result)
            for result in ("written", "skipped", "refused")
        ]
        metrics.VIEW_RETRIES.labels(store.name)  # from 0 on
        self.dead_letters = dead_letters
        self.checkpoint = Checkpoint()

    async def start(self) -> int:
        """Read the checkpoint and drop cached documents: another process may have written.

        Repeats the request until Elasticsearch answers it.

        Returns:
            The position to continue from.

        Raises:
            Fatal: The index does not exist, or has events of another Kafka cluster.
            PartitionFatal: Its checkpoint is damaged.
            IndexChanged: It has events of another topic: look at the indices again.
        """
        self._projector.forget(self._partition)
        index = await self._projector.retry_until_answered(
            self._store.checkpoints, [self._partition]
        )
        self.checkpoint = index.checkpoints[self._partition]
        if self.checkpoint.cluster not in ("", self._log.cluster):
            raise Fatal(
                f"{index.name} has the events of another Kafka cluster: use its own brokers "
                "(CQRS_BOOTSTRAP_SERVERS), or another CQRS_NAMESPACE"
            )
        if self.checkpoint.topic not in ("", self._log.topic_id):
            raise IndexChanged(f"{index.name} has the events of a topic that is gone")
        return self.checkpoint.position

    async def write(
        self, events: Sequence[EventRecord[E]], sources: Sequence[Record], end: int
    ) -> None:
        """Project the events of a chunk and save the checkpoint.

        Repeats requests until Elasticsearch answers them. Events before the checkpoint are skipped.

        Args:
            events: The events of the chunk.
            sources: The record of each event.
            end: Position after the chunk's last record.

        Raises:
            IndexChanged: Another process has changed the checkpoint: start again.
            Fatal: The index is gone (NoSuchView), or the events have gaps or contradictions.
            KafkaError: Dead letters of events that cannot be in the index could not be written.
        """
        before = self.checkpoint
        if end <= before.position:
            return
        first = bisect_left(sources, before.position, key=_offset)
        events, sources = events[first:], sources[first:]
        records, keys = await self._bury_impossible(events, sources)

        async def write_dead_letters(refused: Sequence[RefusedEvents]) -> None:
            source_of = {
                (event.aggregate_id, event.sequence): source
                for event, source in zip(events, sources, strict=True)
            }
            await self.dead_letters.write(
                [
                    (
                        source_of[event.aggregate_id, event.sequence],
                        Poison("refused-document", document.reason),
                    )
                    for document in refused
                    for event in document.records
                ]
            )

        began = time.perf_counter()
        projected = await self._projector.project(
            self._partition, records, write_dead_letters, before
        )
        after = replace(
            before,
            position=end,
            cluster=self._log.cluster,
            topic=self._log.topic_id,
            tally=before.tally.plus_each([key for key in keys if key is not None]),
        )
        if events:
            last = events[-1]
            after = replace(
                after,
                command_offset=last.source.offset,
                sequence=last.sequence,
                event_offset=last.offset,
            )
        self.checkpoint = await self._projector.retry_until_answered(
            self._store.save_checkpoint, self._partition, after
        )
        self._seconds.observe(time.perf_counter() - began)
        impossible = len(events) - len(records)
        counts = Projected(projected.written, projected.skipped, projected.refused + impossible)
        for counter, number in zip(self._counters, counts, strict=True):
            counter.inc(number)

    async def _bury_impossible(
        self, events: Sequence[EventRecord[E]], sources: Sequence[Record]
    ) -> tuple[Sequence[EventRecord[E]], Sequence[str | None]]:
        """Write dead letters for the events of documents that cannot exist.

        Returns:
            The other events, and the id of the document of each. Only these are projected, and
            only these are in the tally.

        Raises:
            KafkaError: The dead letters could not be written.
        """
        keys = list(map(self._projection.key, events))
        possible = [key is None or can_be_document(key) for key in keys]
        if all(possible):
            return events, keys
        await self.dead_letters.write(
            [
                (source, Poison("refused-document", _NO_ID))
                for source, is_possible in zip(sources, possible, strict=True)
                if not is_possible
            ]
        )
        return list(compress(events, possible)), list(compress(keys, possible))

    def forget(self) -> None:
        """Drop the cached documents: another process may write them from now on."""
        self._projector.forget(self._partition)


def _offset(record: Record) -> int:
    return record.offset
