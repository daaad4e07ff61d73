"""One partition of the event topic, projected into a view."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Generic, TypeVar

from aiokafka import AIOKafkaProducer
from faust.types import TP

from models.errors import Fatal, Poison, Transient
from models.messages import Event, EventRecord
from streams.aggregate import Names
from streams.app import StreamApp
from streams.chunks import Record
from streams.dead_letters import dead_letter
from streams.event_reader import EventReader
from streams.projector import Projector
from streams.view_store import ViewStore

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)


class ViewPartition(Generic[E]):
    """Projects chunks of events, then commits the position: at least once, and harmlessly so.

    An event that cannot be read, or whose document Elasticsearch refuses for good, goes to the
    view's dead letters before the position passes it.
    """

    def __init__(
        self,
        app: StreamApp,
        names: Names,
        reader: EventReader[E],
        store: ViewStore,
        projector: Projector[E],
        producer: AIOKafkaProducer,
        tp: TP,
    ) -> None:
        self._app = app
        self._names = names
        self._reader = reader
        self._store = store
        self._projector = projector
        self._producer = producer
        self._tp = tp

    @property
    def waits(self) -> bool:
        """Whether Elasticsearch is away."""
        return self._projector.waits

    async def start(self) -> int:
        """Make sure of the index and return the group's position."""
        self._projector.forget(self._tp.partition)
        await self._store.create_if_missing()
        position = await self._app.committed(self._tp)
        begin, end = await self._app.log_bounds(self._tp)
        if position is None:
            return begin
        if position < begin:
            raise Fatal(
                f"{self._tp.topic}[{self._tp.partition}]: {begin - position} positions expired "
                "before they were projected; events have to be kept for ever (retention.ms=-1)"
            )
        if position > end:
            raise Transient(
                f"{self._tp.topic}[{self._tp.partition}] ends at {end}, before the view's position "
                f"{position}: if its leader is not just behind, events were lost"
            )
        return position

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Project a chunk and commit the position after it."""
        readable: list[EventRecord[E]] = []
        sources: dict[tuple[str, int], Record] = {}
        dead = []
        for record, event in zip(records, await self._reader.read(records), strict=True):
            if isinstance(event, Poison):
                dead.append(dead_letter(record, event))
            else:
                readable.append(event)
                sources[event.aggregate_id, event.sequence] = record
        projected = await self._projector.project(self._tp.partition, readable)
        for refused in projected.refused:
            dead.extend(
                dead_letter(
                    sources[event.aggregate_id, event.sequence],
                    Poison("refused-document", refused.reason),
                )
                for event in refused.records
            )
        for letter in dead:
            await self._producer.send_and_wait(
                self._names.dead_views,
                letter.value,
                letter.key,
                partition=self._tp.partition,
                headers=list(letter.headers),
            )
        if dead:
            logger.warning(
                "%s[%d]: %d events went to %s",
                self._tp.topic,
                self._tp.partition,
                len(dead),
                self._names.dead_views,
            )
        await self._app.commit_position(self._tp, position)

    async def close(self) -> None:
        """Forget the documents: others may write them from now on."""
        self._projector.forget(self._tp.partition)
        await self._reader.forget(self._tp.partition)
