"""Decoding the events that we write, in a third of the time of `parse_event`."""

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, TypeVar, Union
from uuid import UUID

import msgspec

from models.messages import Event, EventRecord, Source
from models.wire import Whole

E = TypeVar("E", bound=Event)


def event_decoder(types: Mapping[str, type[E]]) -> Callable[[bytes], EventRecord[E] | None]:
    """A decoder of events of these types, which takes a third of the time of `parse_event`.

    It reads what we write: each event as `parse_event` reads it out of the same JSON. For anything
    else it gives None, be it wrong, sealed, or only more than is known here; `parse_event` says
    which.
    """
    makers = {_flat(event_type): _maker(event_type) for event_type in types.values()}
    wanted = (_Untyped, *makers)
    decode: Any = msgspec.json.Decoder(Union[wanted]).decode  # noqa: UP007 - of a tuple

    def read(value: bytes) -> EventRecord[E] | None:
        try:
            flat = decode(value)
        except ValueError:  # msgspec's own errors, and UTF-8 that is none
            return None
        make = makers.get(type(flat))
        if make is None or flat.timestamp.tzinfo is not timezone.utc:
            return None
        place = flat.source
        return EventRecord(
            id=flat.id,
            aggregate_id=flat.aggregateId,
            sequence=flat.sequence,
            timestamp=flat.timestamp,
            command_id=flat.commandId,
            correlation_id=flat.correlationId,
            causation_id=flat.causationId,
            source=Source(place.topic, place.partition, place.offset),
            event=make(flat),
        )

    return read


# What is skipped is not checked, it may be no JSON at all: unknown fields are for `parse_event`.
class _Source(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    topic: str
    partition: Whole
    offset: Whole


_ENVELOPE: Final = (
    ("schemaVersion", Literal[1]),
    ("id", UUID),
    ("aggregateId", str),
    ("sequence", Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]),
    ("timestamp", datetime),
    ("commandId", UUID),
    ("correlationId", str | None, None),
    ("causationId", str | None, None),
    ("source", _Source),
)


class _Untyped(msgspec.Struct, tag="", tag_field="type"):
    """No event. Only where there are several types to choose from does msgspec insist on one."""


def _flat(event_type: Any) -> type[msgspec.Struct]:
    """A struct as the event is on the wire, by the names that it has there."""
    fields = [
        (one.encode_name, one.type) if one.required else (one.encode_name, one.type, one.default)
        for one in msgspec.structs.fields(event_type)
    ]
    return msgspec.defstruct(
        event_type.__name__,
        [*_ENVELOPE, *fields],
        tag=event_type.__name__,
        tag_field="type",
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _maker(event_type: Any) -> Callable[[Any], Any]:
    """What makes the event of its flat struct."""
    names = [one.encode_name for one in msgspec.structs.fields(event_type)]
    if len(names) < 2:  # one attribute does not come as a tuple, and none cannot be asked for
        return lambda flat: event_type(*(getattr(flat, name) for name in names))
    get = attrgetter(*names)
    return lambda flat: event_type(*get(flat))
