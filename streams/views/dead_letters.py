"""The dead letters of a view: every event that it cannot take, each at least once.

A letter is on its topic before an index says that it has the event, by its progress or by a
stand-in. So what comes again after a kill may have a second letter, and nothing has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeVar

from aiokafka import AIOKafkaProducer

from models.errors import Poison
from models.messages import Event, EventRecord
from streams.kafka.dead_letters import VIEW, dead_letter
from streams.kafka.records import Record
from streams.views.event_reader import EventReader

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)


class ViewDeadLetters:
    """Writes the dead letters of one view."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, view: str) -> None:
        self._producer = producer
        self._topic = topic
        self._view = view.encode()

    async def decode(
        self, reader: EventReader[E], records: Sequence[Record]
    ) -> tuple[list[EventRecord[E]], list[Record]]:
        """The events in these records, and the record of each; the other records are buried.

        Raises:
            Exception: What the reader raises; KafkaError as below.
        """
        events: list[EventRecord[E]] = []
        sources: list[Record] = []
        dead: list[tuple[Record, Poison]] = []
        for record, event in zip(records, await reader.read(records), strict=True):
            if isinstance(event, Poison):
                dead.append((record, event))
            else:
                events.append(event)
                sources.append(record)
        if dead:
            await self.write(dead)
        return events, sources

    async def write(self, dead: Sequence[tuple[Record, Poison]]) -> None:
        """Write a letter for each of these events, and why; returns when Kafka has them all.

        Raises:
            KafkaError: It may have some of them.
        """
        sent = []
        for record, poison in dead:
            letter = dead_letter(record, poison)
            sent.append(
                await self._producer.send(
                    self._topic,
                    letter.value,
                    letter.key,
                    partition=record.partition,
                    headers=[*letter.headers, (VIEW, self._view)],
                )
            )
        await asyncio.gather(*sent)
        logger.warning("%s: %d events went to %s", self._view.decode(), len(dead), self._topic)
