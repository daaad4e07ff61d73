"""Reading a record of the event topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from models.errors import Poison
from models.messages import Event, EventRecord, parse_event
from streams.chunks import Record

E = TypeVar("E", bound=Event)


def read_event(record: Record, events: Mapping[str, type[E]]) -> EventRecord[E]:
    """The event in a record.

    Raises:
        Poison: it is none of these, or its key is not its aggregate's id.
    """
    try:
        data: Any = None if record.value is None else orjson.loads(record.value)
    except orjson.JSONDecodeError:
        raise Poison("malformed-json", "the value is not JSON") from None
    event = parse_event(data, events)
    if record.key != event.aggregate_id.encode():
        raise Poison("key-mismatch", "the record's key must be the event's aggregate id")
    return event
