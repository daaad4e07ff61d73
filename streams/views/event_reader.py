"""Reads events from records of the event topic, and decrypts their personal fields."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from models.errors import Poison
from models.messages import Event, EventRecord
from streams.aggregate import TopicNames
from streams.encryption.cipher import may_be_sealed
from streams.encryption.events import EventDecoder
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.encryption.shredded import Shredded
from streams.kafka.records import Record
from streams.settings import Settings
from streams.worker.logs import log_defect

E = TypeVar("E", bound=Event)


class EventReader(Generic[E]):
    """Reads events of any partition; create it with `open_event_reader`."""

    def __init__(
        self, types: Mapping[str, type[E]], ring: KeyRing | None, shredded: Shredded | None = None
    ) -> None:
        self._decoder = EventDecoder(types)
        self._ring = ring
        self._shredded = shredded

    async def read(self, records: Sequence[Record]) -> list[EventRecord[E] | Poison]:
        """Return for each record its event, or the reason why it has none.

        The personal fields of an event whose key was destroyed are empty strings.

        Raises:
            Fatal: An event is encrypted, and the master key is missing or wrong.
            KafkaError, Transient: A key has to be read, and the keys topic cannot be.
        """
        fast = [self._decoder.decode_plain(record) for record in records]
        slow = [record for record, event in zip(records, fast, strict=True) if event is None]
        if self._ring is not None:
            for partition in {record.partition for record in slow}:
                sealed = sealed_ids(one for one in slow if one.partition == partition)
                await self._ring.ensure_loaded(partition, sealed)
        events = [
            self._decode(record) if event is None else event
            for record, event in zip(records, fast, strict=True)
        ]
        if self._shredded is not None:
            for record, event in zip(records, events, strict=True):
                # one that was not sealed has no key: somebody wrote the empty field
                if isinstance(event, EventRecord) and (
                    event.event.erases or may_be_sealed(record.value)
                ):
                    self._shredded.note(event)
        return events

    def forget(self, partition: int) -> None:
        """Drop the keys of a partition that this worker no longer reads."""
        if self._ring is not None:
            self._ring.forget(partition)

    def _decode(self, record: Record) -> EventRecord[E] | Poison:
        keys = None if self._ring is None else self._ring.of(record.partition)
        try:
            return self._decoder.decode(record, keys)
        except Poison as poison:
            if poison.__cause__ is not None:
                log_defect("reading an event", poison.__cause__, record, offset=record.offset)
            return poison.without_traceback()


@asynccontextmanager
async def open_event_reader(
    settings: Settings,
    names: TopicNames,
    types: Mapping[str, type[E]],
    shredded: Shredded | None = None,
) -> AsyncIterator[EventReader[E]]:
    """Open a reader of an aggregate's events, with its own connections to Kafka.

    Args:
        settings: Contain the address of Kafka, and the master key.
        names: Of the aggregate's topics.
        types: Its event types, by name.
        shredded: Is told all events that are read.

    Raises:
        Fatal: Kafka does not answer, or personal data is to be encrypted without a master key.
    """
    async with open_key_ring(settings, names) as ring:
        yield EventReader(types, ring, shredded)


def sealed_ids(records: Iterable[Record]) -> set[bytes]:
    """Return the keys (aggregate ids) of records that may have sealed fields; a few have none."""
    return {
        record.key for record in records if record.key is not None and may_be_sealed(record.value)
    }
