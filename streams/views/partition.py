"""One partition of the event topic, projected into the indices of a view that are followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from faust.types import TP

from models.errors import Fatal, NoSuchView, Transient
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
    """Projects chunks of events into every index that is followed, each by its own position.

    An event that cannot be read, or whose document Elasticsearch refuses for good, is in the view's
    dead letters before any index passes it. The group's position is only for tools which look at
    consumer groups: each index says itself how far it is.
    """

    def __init__(
        self,
        app: StreamApp,
        reader: EventReader[E],
        follower: ViewFollower[E],
        letters: ViewDeadLetters,
        tp: TP,
    ) -> None:
        self._app = app
        self._reader = reader
        self._follower = follower
        self._letters = letters
        self._tp = tp
        self._writers: Sequence[PartitionWriter[E]] = ()

    @property
    def is_waiting(self) -> bool:
        """Whether Elasticsearch is away."""
        return self._follower.is_waiting

    async def start(self) -> int:
        """Make sure of the indices and return the position of the one that is least far."""
        with _indices_may_go():
            self._writers = await self._follower.writers(self._tp.partition)
        position = min(writer.checkpoint.position for writer in self._writers)
        begin, end = await self._app.log_bounds(self._tp)
        if position < begin:
            raise Fatal(
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

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Project a chunk."""
        events, sources = await self._letters.decode(self._reader, records)
        with _indices_may_go():
            # The newest first: a rebuilt index is never behind the one that it replaces.
            for writer in self._writers:
                await writer.write(events, sources, position)

    async def close(self) -> None:
        """Forget the documents: others may write them from now on."""
        self._follower.release(self._tp.partition)
        await self._reader.forget(self._tp.partition)


@contextmanager
def _indices_may_go() -> Iterator[None]:
    """An index that was deleted is noticed here; the partition starts again, and makes another."""
    try:
        yield
    except NoSuchView as error:
        raise IndexChanged(str(error)) from error
