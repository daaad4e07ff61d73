"""Read an event from its record, with its sealed fields opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from models.errors import Poison
from models.messages import Event, EventRecord, parse_event
from streams.encryption.cipher import PERSONAL, DecryptionError, open_event
from streams.encryption.keys import PartitionKeys, no_master_key
from streams.kafka.records import Record

E = TypeVar("E", bound=Event)


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
