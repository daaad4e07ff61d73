"""The read side of a user: the document that is searched, and how events change it.

It knows the events and not the aggregate. A document is a plain dict in camelCase, as in the index;
`UserReadModel` is what a query returns. The caller checks that an event is due: its sequence is the
document's version + 1.

An erased user leaves a tombstone: a document of id and version only, which no query returns. It is
never deleted, so that its version keeps older events out for ever.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from models.errors import PartitionFatal
from models.events import (
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.messages import EventRecord
from models.validation import Time


class UserReadModel(BaseModel):
    """A user as queries return it. `version` is the number of events that it is folded from."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    id: str
    email: str
    first_name: str
    last_name: str
    is_active: bool
    registered_at: Time
    last_updated: Time
    version: int


def project(document: Mapping[str, Any] | None, record: EventRecord[UserEvent]) -> dict[str, Any]:
    """Return the document after the event: a new dict, the old one is not changed.

    If the personal fields of an event cannot be read any more, its user is erased by a later event:
    the result is the tombstone already, because there is nothing to show.

    Raises:
        PartitionFatal: the first event is not a registration, or a later one is.
    """
    event, at = record.event, format_milliseconds(record.timestamp)
    if (document is None) != isinstance(event, UserRegistered):
        fault = "comes before UserRegistered" if document is None else "follows other events"
        raise _broken(record, fault)
    if (
        isinstance(event, UserErased)
        or event.is_shredded
        or (document is not None and is_tombstone(document))
    ):
        return {"id": record.aggregate_id, "version": record.sequence}
    if document is None:
        assert isinstance(event, UserRegistered)
        return {
            "id": record.aggregate_id,
            "email": event.email,
            "firstName": event.first_name,
            "lastName": event.last_name,
            "isActive": True,
            "registeredAt": at,
            "lastUpdated": at,
            "version": record.sequence,
        }
    changes: dict[str, Any]
    match event:
        case UserDeactivated():
            changes = {"isActive": False}
        case UserReactivated():
            changes = {"isActive": True}
        case _:
            assert isinstance(event, UserProfileUpdated)
            changes = msgspec.to_builtins(event)  # of the three fields, those that changed
    return {**document, **changes, "lastUpdated": at, "version": record.sequence}


def is_tombstone(document: Mapping[str, Any]) -> bool:
    """Whether the document is the tombstone of an erased user."""
    return "email" not in document


def format_milliseconds(at: datetime) -> str:
    """Return a time as documents have it, so that text and time sort alike: `...:00.123Z`."""
    text: str = msgspec.to_builtins(at)  # a fifth of the time of `isoformat`
    return f"{text[:-4]}Z" if at.microsecond else f"{text[:-1]}.000Z"


def _broken(record: EventRecord[UserEvent], fault: str) -> PartitionFatal:
    return PartitionFatal(
        f"The history of user {record.aggregate_id} is broken: {record.type} number "
        f"{record.sequence} {fault}. Restore the events."
    )
