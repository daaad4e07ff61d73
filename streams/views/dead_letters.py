"""Writes the dead letters of a view: one for each event that it cannot project, at least once.

A dead letter is on its topic before the index passes the event, in a checkpoint or by a stand-in.
So an event that is processed again after a crash may have a second one, but no event has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypeVar, get_args

from models.errors import Poison, PoisonCode
from models.messages import Event, EventRecord
from streams import metrics
from streams.kafka.dead_letters import VIEW, dead_letter
from streams.kafka.lasting_producer import LastingProducer
from streams.kafka.records import Record
from streams.kafka.transactions import Batches, OutputRecord
from streams.logs import about
from streams.views.event_reader import EventReader

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)


class ViewDeadLetters:
    """Writes the dead letters of one view."""

    def __init__(self, producer: LastingProducer, topic: str, view: str) -> None:
        self._producer = producer
        self._topic = topic
        self._view = view.encode()
        for code in get_args(PoisonCode):
            metrics.DEAD_LETTERS.labels(view, code)  # from 0 on: the first one is an increase

    async def decode(
        self, reader: EventReader[E], records: Sequence[Record]
    ) -> tuple[list[EventRecord[E]], list[Record]]:
        """Read the events in these records, and write dead letters for records that have none.

        Returns:
            The events, and the record of each.

        Raises:
            KafkaError: The dead letters could not be written, or the reader raised it.
            Exception: Anything else that `EventReader.read` raises.
        """
        events: list[EventRecord[E]] = []
        sources: list[Record] = []
        poisoned: list[tuple[Record, Poison]] = []
        for record, event in zip(records, await reader.read(records), strict=True):
            if isinstance(event, Poison):
                poisoned.append((record, event))
            else:
                events.append(event)
                sources.append(record)
        if poisoned:
            await self.write(poisoned)
        return events, sources

    async def write(self, poisoned: Sequence[tuple[Record, Poison]]) -> None:
        """Write a dead letter for each record, with its reason; wait until Kafka has all of them.

        Raises:
            KafkaError: Some of them may have been written.
        """
        outputs: dict[int, list[OutputRecord]] = defaultdict(list)
        for record, poison in poisoned:
            output = dead_letter(record, poison)
            headers = [*output.headers, (VIEW, self._view)]
            outputs[record.partition].append(OutputRecord(output.key, output.value, headers))
        # By batches: `send` refuses a record that has neither key nor value.
        async with self._producer.use() as producer:
            sent = [
                await producer.send_batch(batch, self._topic, partition=partition)
                for partition, records in outputs.items()
                for batch in Batches(producer.create_batch, records).close()
            ]
            await asyncio.gather(*sent)
        for code, number in Counter(poison.code for _, poison in poisoned).items():
            metrics.DEAD_LETTERS.labels(self._view.decode(), code).inc(number)
        logger.warning(
            "%s: wrote %d dead letters to %s",
            self._view.decode(),
            len(poisoned),
            self._topic,
            extra=about("view-dead-letters", view=self._view.decode()),
        )
