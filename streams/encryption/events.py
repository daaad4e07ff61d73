"""Read an event from its record, with its sealed fields opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import orjson

from models.errors import CqrsError, Poison
from models.event_decoder import event_decoder
from models.messages import Event, EventRecord, parse_event
from streams.encryption.cipher import PERSONAL, DecryptionError, open_event
from streams.encryption.keys import PartitionKeys, no_master_key
from streams.kafka.records import Record

E = TypeVar("E", bound=Event)


class EventDecoder(Generic[E]):
    """Decodes the events of one aggregate: valid ones without sealed fields fast."""

    def __init__(self, types: Mapping[str, type[E]]) -> None:
        self._types = types
        self._decode_plain = event_decoder(types)

    def decode_plain(self, record: Record) -> EventRecord[E] | None:
        """Decode a valid event without sealed fields; return None for any other record."""
        value = record.value
        event = None if value is None else self._decode_plain(value, record.offset)
        return event if event is not None and event.aggregate_id.encode() == record.key else None

    def decode(self, record: Record, keys: PartitionKeys | None) -> EventRecord[E]:
        """Decode any record; those that `decode_plain` can, it decodes faster.

        Raises:
            Poison: As for `read_event`; also if reading it raised anything else, which is a defect
                and is the `__cause__`.
            Fatal: As for `open_personal`.
        """
        try:
            return read_event(record, self._types, keys)
        except CqrsError:
            raise
        except Exception as error:
            text = f"reading it raised {type(error).__name__}"
            raise Poison("unreadable", text) from error


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
    event = parse_event(data, types, offset=record.offset)
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
