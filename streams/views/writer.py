"""One partition of the event topic on its way into one index: chunk by chunk, each once.

A chunk's documents are written first and the index's progress after that, so what the index says
it has, it has. Whoever goes on, a worker or a rebuild, begins where the index says it is. What
Elasticsearch refuses for good is in the view's dead letters before that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from models.errors import Fatal, Poison
from models.messages import Event, EventRecord
from streams.kafka.records import Record
from streams.views.checkpoint import Checkpoint
from streams.views.dead_letters import ViewDeadLetters
from streams.views.projection import Projection
from streams.views.projector import Projector, Refused
from streams.views.store import ViewStore
from streams.views.tally import Tally

E = TypeVar("E", bound=Event)


class PartitionWriter(Generic[E]):
    """Writes one partition's events into one index. Nothing else has the projector's partition."""

    def __init__(
        self,
        store: ViewStore,
        projector: Projector[E],
        projection: Projection[E],
        letters: ViewDeadLetters,
        partition: int,
        cluster: str,
    ) -> None:
        """`cluster` is the id of the Kafka cluster that the events are read from."""
        self._store = store
        self._projector = projector
        self._projection = projection
        self._partition = partition
        self._cluster = cluster
        self.letters = letters
        self.checkpoint = Checkpoint()

    async def start(self) -> int:
        """Ask the index how far it is, and forget what was known: others may have written to it.

        Raises:
            Fatal: It has the events of another cluster.
        """
        self._projector.forget(self._partition)
        serving = await self._projector.retry_until_answered(
            self._store.checkpoints, [self._partition]
        )
        self.checkpoint = serving.checkpoints[self._partition]
        if self.checkpoint.cluster not in ("", self._cluster):
            raise Fatal(
                f"{serving.name} has the events of another Kafka cluster: use its own brokers "
                "(CQRS_BOOTSTRAP_SERVERS), or another CQRS_NAMESPACE"
            )
        return self.checkpoint.position

    async def write(
        self, events: Sequence[EventRecord[E]], sources: Sequence[Record], end: int
    ) -> None:
        """Project a chunk, whose records end before the position `end`; waits as long as it takes.

        Events that the index has, as the offsets of their `sources` say, are left out.

        Raises:
            IndexChanged: The index is not what this writer has left: start again.
            Fatal: It is gone (NoSuchView), or the events contradict.
            KafkaError: Some were refused, and their letters could not be written.
        """
        before = self.checkpoint
        if end <= before.position:
            return
        records = events[bisect_left(sources, before.position, key=_offset) :]

        async def bury(refused: Sequence[Refused]) -> None:
            places = {
                (event.aggregate_id, event.sequence): source
                for event, source in zip(events, sources, strict=True)
            }
            await self.letters.write(
                [
                    (
                        places[event.aggregate_id, event.sequence],
                        Poison("refused-document", one.reason),
                    )
                    for one in refused
                    for event in one.records
                ]
            )

        await self._projector.project(self._partition, records, bury)
        after = replace(before, position=end, cluster=self._cluster, tally=self._tally(records))
        if records:
            last = records[-1]
            after = replace(after, command_offset=last.source.offset, sequence=last.sequence)
        self.checkpoint = await self._projector.retry_until_answered(
            self._store.save_checkpoint, self._partition, after
        )

    def _tally(self, records: Sequence[EventRecord[E]]) -> Tally:
        """What all events add up to with these."""
        keys = map(self._projection.key, records)
        return self.checkpoint.tally.plus_each([key for key in keys if key is not None])

    def forget(self) -> None:
        """Drop the documents that are kept: others may write them from now on."""
        self._projector.forget(self._partition)


def _offset(record: Record) -> int:
    return record.offset
