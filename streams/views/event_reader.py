"""Reading records of the event topic, with the personal fields opened where the key is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import orjson

from models.errors import Poison
from models.event_decoder import event_decoder
from models.messages import Event, EventRecord, parse_event
from streams.aggregate import TopicNames
from streams.encryption.cipher import PERSONAL, DecryptionError, may_be_sealed, open_event
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.encryption.keys import PartitionKeys, no_master_key
from streams.kafka.records import Record
from streams.settings import Settings

E = TypeVar("E", bound=Event)


class EventReader(Generic[E]):
    """Reads events; `open_event_reader` makes it. Any partition will do, at any time."""

    def __init__(self, types: Mapping[str, type[E]], ring: KeyRing | None) -> None:
        self._types = types
        self._ring = ring
        self._decode_plain = event_decoder(types)

    async def read(self, records: Sequence[Record]) -> list[EventRecord[E] | Poison]:
        """Return for each record the event in it, or why there is none.

        The personal fields of an event whose key is destroyed are empty strings.

        Raises:
            Fatal: something is encrypted, and the master key is missing or another one.
            KafkaError, Transient: a key was missing, and the topic of the keys could not be read.
        """
        fast = [self._decode_fast(record) for record in records]
        slow = [record for record, event in zip(records, fast, strict=True) if event is None]
        if self._ring is not None:
            for partition in {record.partition for record in slow}:
                sealed = sealed_ids(one for one in slow if one.partition == partition)
                await self._ring.ensure_loaded(partition, sealed)
        return [
            self._decode(record) if event is None else event
            for record, event in zip(records, fast, strict=True)
        ]

    async def forget(self, partition: int) -> None:
        """Drop the keys of a partition that others read from now on."""
        if self._ring is not None:
            await self._ring.forget(partition)

    def _decode_fast(self, record: Record) -> EventRecord[E] | None:
        """The event, if it is neither sealed nor wrong."""
        event = None if record.value is None else self._decode_plain(record.value)
        return event if event is not None and event.aggregate_id.encode() == record.key else None

    def _decode(self, record: Record) -> EventRecord[E] | Poison:
        try:
            keys = None if self._ring is None else self._ring.of(record.partition)
            return read_event(record, self._types, keys)
        except Poison as poison:
            return poison.without_traceback()


@asynccontextmanager
async def open_event_reader(
    settings: Settings, names: TopicNames, types: Mapping[str, type[E]]
) -> AsyncIterator[EventReader[E]]:
    """A reader of an aggregate's events, with connections of its own. Raises Fatal."""
    async with open_key_ring(settings, names) as ring:
        yield EventReader(types, ring)


def sealed_ids(records: Iterable[Record]) -> set[bytes]:
    """The aggregates of which there are encrypted events; others may be among them."""
    return {
        record.key for record in records if record.key is not None and may_be_sealed(record.value)
    }


def read_event(
    record: Record, types: Mapping[str, type[E]], keys: PartitionKeys | None
) -> EventRecord[E]:
    """The event in a record, read with these keys. Raises Poison, and Fatal as `open_personal`."""
    try:
        data: Any = None if record.value is None else orjson.loads(record.value)
    except orjson.JSONDecodeError:
        raise Poison("malformed-json", "the value is not JSON") from None
    if isinstance(data, dict):
        open_personal(data, types, keys)
    event = parse_event(data, types)
    if record.key != event.aggregate_id.encode():
        raise Poison("key-mismatch", "the record's key must be the event's aggregate id")
    return event


def open_personal(
    data: dict[str, Any], types: Mapping[str, type[E]], keys: PartitionKeys | None
) -> None:
    """Open the sealed fields of an event on the wire, in place.

    Raises:
        Poison: they do not open, though the key is there.
        Fatal: there are some, and the master key (without it there are no keys) is missing or
            another one.
    """
    if PERSONAL not in data:
        return
    if keys is None:
        raise no_master_key()
    event_type = types.get(str(data.get("type")))
    personal = () if event_type is None else event_type.personal
    try:
        open_event(data, personal, keys.get(str(data.get("aggregateId")).encode()))
    except DecryptionError as error:
        raise Poison("unreadable", f"{PERSONAL}: {error}") from None
