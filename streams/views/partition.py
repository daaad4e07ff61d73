"""Projects one partition of the event topic into the followed indices of a view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from faust.types import TP

from models.errors import NoSuchView, PartitionFatal, Transient
from models.messages import Event
from streams.kafka.records import Record
from streams.views.checkpoint import IndexChanged
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import EventReader
from streams.views.follower import ViewFollower
from streams.views.writer import PartitionWriter
from streams.worker.app import StreamApp

E = TypeVar("E", bound=Event)


class ViewPartition(Generic[E]):
    """Projects chunks of events into every followed index, each from its own checkpoint.

    An event that cannot be read, or whose document Elasticsearch refuses for good, becomes a dead
    letter before any index passes it. The offsets of the consumer group are only for monitoring
    tools: the position is that of the checkpoints.
    """

    def __init__(
        self,
        app: StreamApp,
        reader: EventReader[E],
        follower: ViewFollower[E],
        dead_letters: ViewDeadLetters,
        tp: TP,
    ) -> None:
        self._app = app
        self._reader = reader
        self._follower = follower
        self._dead_letters = dead_letters
        self._tp = tp
        self._writers: Sequence[PartitionWriter[E]] = ()

    @property
    def is_waiting(self) -> bool:
        """Whether a request to Elasticsearch has failed and is being repeated."""
        return self._follower.is_waiting

    async def start(self) -> int:
        """Start a writer for each followed index, and return the lowest of their positions.

        Raises:
            PartitionFatal: Events that are still to be projected have expired.
            Fatal: The followed indices have another definition.
            Transient: The topic ends before the position, an index was deleted, or Elasticsearch
                failed.
            KafkaError: Kafka failed.
        """
        with _restart_if_deleted():
            self._writers = await self._follower.writers(self._tp.partition)
        position = min(writer.checkpoint.position for writer in self._writers)
        begin, end = await self._app.log_bounds(self._tp)
        if position < begin:
            raise PartitionFatal(
                f"{self._tp.topic}[{self._tp.partition}]: {begin - position} positions expired "
                "before they were projected; events have to be kept for ever (retention.ms=-1): "
                "restore the topic, or an index that has them, from a backup"
            )
        if position > end:
            raise Transient(
                f"{self._tp.topic}[{self._tp.partition}] ends at {end}, before the view's position "
                f"{position}: if its leader is not just behind, events were lost"
            )
        return position

    async def check_log(self) -> None:
        """Check nothing: an index does not contain the event topic's id."""

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Project a chunk of records that ends before `position`.

        Raises:
            IndexChanged: An index was deleted, restored, or written to by another worker.
            PartitionFatal: The events have a gap or contradict each other.
            Fatal: Elasticsearch refuses, or the master key is missing or wrong.
            KafkaError, Transient: Dead letters or keys could not be written or read.
        """
        events, sources = await self._dead_letters.decode(self._reader, records)
        with _restart_if_deleted():
            # The newest first: a rebuilt index is never behind the one that it replaces.
            for writer in self._writers:
                await writer.write(events, sources, position)

    async def close(self) -> None:
        """Drop documents and keys of the partition: another worker may own it from now on."""
        self._follower.release(self._tp.partition)
        await self._reader.forget(self._tp.partition)


@contextmanager
def _restart_if_deleted() -> Iterator[None]:
    """Turn `NoSuchView` into `IndexChanged`: the partition starts again and creates an index."""
    try:
        yield
    except NoSuchView as error:
        raise IndexChanged(str(error)) from error
