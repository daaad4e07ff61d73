"""Reads events from records of the event topic, and decrypts their personal fields."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import orjson

from models.errors import CqrsError, Poison
from models.event_decoder import event_decoder
from models.messages import Event, EventRecord, parse_event
from streams.aggregate import TopicNames
from streams.encryption.cipher import PERSONAL, DecryptionError, may_be_sealed, open_event
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.encryption.keys import PartitionKeys, no_master_key
from streams.kafka.records import Record
from streams.settings import Settings
from streams.worker.logs import log_defect

E = TypeVar("E", bound=Event)


class EventReader(Generic[E]):
    """Reads events of any partition; create it with `open_event_reader`."""

    def __init__(self, types: Mapping[str, type[E]], ring: KeyRing | None) -> None:
        self._types = types
        self._ring = ring
        self._decode_plain = event_decoder(types)

    async def read(self, records: Sequence[Record]) -> list[EventRecord[E] | Poison]:
        """Return for each record its event, or the reason why it has none.

        The personal fields of an event whose key was destroyed are empty strings.

        Raises:
            Fatal: An event is encrypted, and the master key is missing or wrong.
            KafkaError, Transient: A key has to be read, and the keys topic cannot be.
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
        """Drop the keys of a partition that this worker no longer reads."""
        if self._ring is not None:
            await self._ring.forget(partition)

    def _decode_fast(self, record: Record) -> EventRecord[E] | None:
        """Decode a valid event without sealed fields; return None for any other record."""
        event = None if record.value is None else self._decode_plain(record.value)
        return event if event is not None and event.aggregate_id.encode() == record.key else None

    def _decode(self, record: Record) -> EventRecord[E] | Poison:
        try:
            keys = None if self._ring is None else self._ring.of(record.partition)
            return read_event(record, self._types, keys)
        except Poison as poison:
            return poison.without_traceback()
        except CqrsError:
            raise
        except Exception as error:
            log_defect(f"reading {record.topic}[{record.partition}] at {record.offset}", error)
            return Poison("unreadable", f"reading it raised {type(error).__name__}")


@asynccontextmanager
async def open_event_reader(
    settings: Settings, names: TopicNames, types: Mapping[str, type[E]]
) -> AsyncIterator[EventReader[E]]:
    """Open a reader of an aggregate's events, with its own connections to Kafka.

    Raises:
        Fatal: Kafka does not answer, or personal data is to be encrypted without a master key.
    """
    async with open_key_ring(settings, names) as ring:
        yield EventReader(types, ring)


def sealed_ids(records: Iterable[Record]) -> set[bytes]:
    """Return the keys (aggregate ids) of records that may have sealed fields; a few have none."""
    return {
        record.key for record in records if record.key is not None and may_be_sealed(record.value)
    }


def read_event(
    record: Record, types: Mapping[str, type[E]], keys: PartitionKeys | None
) -> EventRecord[E]:
    """Read the event in a record, and open its sealed fields with these keys.

    Raises:
        Poison: The record is not a valid event, or its sealed fields do not open.
        Fatal: As for `open_personal`.
    """
    if record.unreadable is not None:
        raise record.unreadable
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
    """Open the sealed fields of an event in its wire format, in place.

    Raises:
        Poison: They do not open, although the key is there.
        Fatal: It has sealed fields, and there is no master key (`keys` is None) or a wrong one.
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
