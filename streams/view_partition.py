"""One partition of the event topic, projected into the indices of a view that are followed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from aiokafka import AIOKafkaProducer
from faust.types import TP

from models.errors import Fatal, NoSuchView, Poison, Transient
from models.messages import Event, EventRecord
from streams.aggregate import Names
from streams.app import StreamApp
from streams.chunks import Record
from streams.dead_letters import VIEW, dead_letter
from streams.event_reader import EventReader
from streams.projector import Refused
from streams.transactions import Output
from streams.view import View
from streams.view_follow import ViewFollower
from streams.view_progress import IndexChanged
from streams.view_writer import PartitionWriter

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)


class ViewPartition(Generic[E]):
    """Projects chunks of events into every index that is followed, each by its own position.

    An event that cannot be read, or whose document Elasticsearch refuses for good, goes to the
    view's dead letters before the group's position passes it. That position is only for tools which
    look at consumer groups: each index says itself how far it is.
    """

    def __init__(
        self,
        app: StreamApp,
        names: Names,
        view: View[E],
        reader: EventReader[E],
        follower: ViewFollower[E],
        producer: AIOKafkaProducer,
        tp: TP,
    ) -> None:
        self._app = app
        self._names = names
        self._view = view
        self._reader = reader
        self._follower = follower
        self._producer = producer
        self._tp = tp
        self._writers: Sequence[PartitionWriter[E]] = ()

    @property
    def waits(self) -> bool:
        """Whether Elasticsearch is away."""
        return self._follower.waits

    async def start(self) -> int:
        """Make sure of the indices and return the position of the one that is least far."""
        with _indices_may_go():
            self._writers = await self._follower.writers(self._tp.partition)
        position = min(writer.progress.position for writer in self._writers)
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
        readable: list[EventRecord[E]] = []
        sources: list[Record] = []
        dead: list[Output] = []
        for record, event in zip(records, await self._reader.read(records), strict=True):
            if isinstance(event, Poison):
                dead.append(self._letter(record, event))
            else:
                readable.append(event)
                sources.append(record)
        offsets = [record.offset for record in sources]
        refused: list[Refused] = []
        with _indices_may_go():
            # The newest first: a rebuilt index is never behind the one that it replaces.
            for writer in self._writers:
                refused.extend(await writer.write(readable, offsets, position))
        if refused:
            places = {
                (event.aggregate_id, event.sequence): record
                for event, record in zip(readable, sources, strict=True)
            }
            dead.extend(
                self._letter(
                    places[event.aggregate_id, event.sequence],
                    Poison("refused-document", one.reason),
                )
                for one in refused
                for event in one.records
            )
        if dead:
            await self._bury(dead)

    async def close(self) -> None:
        """Forget the documents: others may write them from now on."""
        self._follower.release(self._tp.partition)
        await self._reader.forget(self._tp.partition)

    def _letter(self, record: Record, poison: Poison) -> Output:
        letter = dead_letter(record, poison)
        return letter._replace(headers=[*letter.headers, (VIEW, self._view.name.encode())])

    async def _bury(self, letters: Sequence[Output]) -> None:
        for letter in letters:
            await self._producer.send_and_wait(
                self._names.dead_views,
                letter.value,
                letter.key,
                partition=self._tp.partition,
                headers=list(letter.headers),
            )
        logger.warning(
            "%s[%d]: %d events went to %s",
            self._tp.topic,
            self._tp.partition,
            len(letters),
            self._names.dead_views,
        )


@contextmanager
def _indices_may_go() -> Iterator[None]:
    """An index that was deleted is noticed here; the partition starts again, and makes another."""
    try:
        yield
    except NoSuchView as error:
        raise IndexChanged(str(error)) from error
