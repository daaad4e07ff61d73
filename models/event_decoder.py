"""Decoding the events that this project writes, in a third of the time of `parse_event`."""

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, TypeVar, Union
from uuid import UUID

import msgspec

from models.messages import Event, EventRecord, Source
from models.wire import Whole

E = TypeVar("E", bound=Event)


def event_decoder(types: Mapping[str, type[E]]) -> Callable[[bytes, int], EventRecord[E] | None]:
    """Return a decoder of events of these types, which takes a third of the time of `parse_event`.

    It takes the value of a record, and its offset. From what this project writes, it returns the
    same event as `parse_event`. For anything else it returns None: JSON that is wrong or sealed, or
    that has unknown fields. `parse_event` decides which.
    """
    builders = {wire_struct(event_type): _builder(event_type) for event_type in types.values()}
    wanted = (_Untyped, *builders)
    decode: Any = msgspec.json.Decoder(Union[wanted]).decode  # noqa: UP007 - of a tuple

    def read(value: bytes, offset: int) -> EventRecord[E] | None:
        try:
            flat = decode(value)
        except (ValueError, RecursionError):  # of msgspec, or of UTF-8 that is invalid
            return None
        build = builders.get(type(flat))
        if build is None or flat.timestamp.tzinfo is not timezone.utc:
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
            event=build(flat),
            offset=offset,
        )

    return read


# msgspec does not check what it skips, which may be no JSON: unknown fields are for `parse_event`.
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
    """Not an event. msgspec insists on a type field only if there are several types to choose."""


def wire_struct(event_type: Any) -> type[msgspec.Struct]:
    """Return a struct type for the flat object on the wire, with the names of its fields there."""
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


def _builder(event_type: Any) -> Callable[[Any], Any]:
    """Return a function that builds the event from its flat struct."""
    names = [one.encode_name for one in msgspec.structs.fields(event_type)]
    if len(names) < 2:  # `attrgetter` returns no tuple for one name, and needs at least one
        return lambda flat: event_type(*(getattr(flat, name) for name in names))
    get = attrgetter(*names)
    return lambda flat: event_type(*get(flat))
