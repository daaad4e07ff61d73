"""The read side of a user: the document that is searched, and how events become it.

Knows the events and nothing of the aggregate. A document is a plain dict in camelCase, as it is in
the index; `UserReadModel` is what a query gives back. Whether an event is due (its sequence is the
document's version + 1) is decided before it comes here.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from models.errors import Fatal
from models.events import UserDeactivated, UserEvent, UserReactivated, UserRegistered
from models.messages import EventRecord
from models.validation import Time


class UserReadModel(BaseModel):
    """A user as queries show it. `version` is the number of events that it is made of."""

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
    """The document after the event: a new dict, the old one is left as it is.

    Raises:
        Fatal: the first event is not a registration, or a later one is.
    """
    event, at = record.event, format_milliseconds(record.timestamp)
    if isinstance(event, UserRegistered):
        if document is not None:
            raise _broken(record, "follows other events")
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
    if document is None:
        raise _broken(record, "comes before UserRegistered")
    changes: dict[str, Any]
    if isinstance(event, UserDeactivated):
        changes = {"isActive": False}
    elif isinstance(event, UserReactivated):
        changes = {"isActive": True}
    else:
        changes = event.to_wire()  # of the three fields, those that changed
    return {**document, **changes, "lastUpdated": at, "version": record.sequence}


def format_milliseconds(at: datetime) -> str:
    """The one form of a time in documents, so that text and time sort alike: `...:00.123Z`."""
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"


def _broken(record: EventRecord[UserEvent], fault: str) -> Fatal:
    return Fatal(
        f"The history of user {record.aggregate_id} is broken: {record.type} number "
        f"{record.sequence} {fault}. Restore the events."
    )
