"""Projects one partition of the event topic into the index of a view that people read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from faust.types import TP

from models.errors import Fatal, NoSuchView, PartitionFatal
from models.messages import Event
from streams.kafka.records import Record
from streams.kafka.topic_ids import topic_id
from streams.logs import name_of
from streams.views.checkpoint import IndexChanged
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import EventReader
from streams.views.follower import ViewFollower
from streams.views.writer import PartitionWriter
from streams.worker.app import StreamApp

E = TypeVar("E", bound=Event)


class ViewPartition(Generic[E]):
    """Projects chunks of events into the lead of the follower, from its checkpoint on.

    An event that cannot be read, or whose document Elasticsearch refuses for good, becomes a dead
    letter before the index passes it. The offsets of the consumer group are only for monitoring
    tools: the position is that of the checkpoint.
    """

    def __init__(
        self,
        app: StreamApp,
        view: str,
        reader: EventReader[E],
        follower: ViewFollower[E],
        dead_letters: ViewDeadLetters,
        tp: TP,
    ) -> None:
        self._app = app
        self._view = view
        self._reader = reader
        self._follower = follower
        self._dead_letters = dead_letters
        self._tp = tp
        self._writer: PartitionWriter[E] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a request to Elasticsearch has failed and is being repeated."""
        return self._follower.is_waiting

    @property
    def restored(self) -> None:
        """None: it holds no state."""

    async def start(self) -> int:
        """Start a writer into the index that people read, and return its position.

        Raises:
            PartitionFatal: Events that are still to be projected have expired, or the log ends
                before the position.
            Fatal: The view's indices have another definition, or the topic is another one.
            Transient: An index was deleted, or Elasticsearch failed.
            KafkaError: Kafka failed.
        """
        with _restart_if_deleted():
            self._writer = await self._follower.lead(self._tp.partition)
        position = self._writer.checkpoint.position
        begin, end = await self._app.log_bounds(self._tp)
        if position < begin:
            raise PartitionFatal(
                f"{name_of(self._tp)}: {begin - position} positions expired "
                "before they were projected; events have to be kept for ever (retention.ms=-1): "
                "restore the topic, or an index that has them, from a backup"
            )
        if position > end:
            await self.check_log()
            raise PartitionFatal(
                f"{name_of(self._tp)} ends at {end}, before the view's position "
                f"{position}: if the topic was deleted and created again, run `cqrs views rebuild "
                f"{self._view} --abandon-serving`; if not, records were lost: restore them from a "
                "backup"
            )
        return position

    async def check_log(self) -> None:
        """Check that the event topic is still the one that the index is made of.

        Raises:
            Fatal: It was deleted and created again.
            KafkaError: The broker does not know it at the moment.
        """
        found = await topic_id(self._app.settings, self._tp.topic)
        if found != self._follower.log.topic_id:
            raise Fatal(
                f"the topic {self._tp.topic} was deleted and created again, so the view has events "
                f"that are gone: run `cqrs views rebuild {self._view}`, and then this worker"
            )

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Project a chunk of records that ends before `position`.

        Raises:
            IndexChanged: An index was deleted, restored, or written to by another worker.
            PartitionFatal: The events have a gap or contradict each other.
            Fatal: Elasticsearch refuses, or the master key is missing or wrong.
            KafkaError, Transient: Dead letters or keys could not be written or read.
        """
        assert self._writer is not None
        events, sources = await self._dead_letters.decode(self._reader, records)
        with _restart_if_deleted():
            await self._writer.write(events, sources, position)

    async def close(self) -> None:
        """Drop documents and keys of the partition: another worker may own it from now on."""
        self._follower.release(self._tp.partition)
        self._reader.forget(self._tp.partition)


@contextmanager
def _restart_if_deleted() -> Iterator[None]:
    """Turn `NoSuchView` into `IndexChanged`: the partition starts again and creates an index."""
    try:
        yield
    except NoSuchView as error:
        raise IndexChanged(str(error)) from error
