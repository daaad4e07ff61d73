"""The read side of registrations: how many users registered on a day, by registration source.

It knows the events and not the aggregate. Each partition keeps the count of a day and a source in a
document of its own, so that every document has one writer and its events one order. A query adds
them up.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models.errors import PartitionFatal
from models.events import UserDeactivated, UserEvent, UserProfileUpdated, UserRegistered
from models.messages import EventRecord, Source

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_SOURCE_BYTES = 400  # in a document's id, which has 512 at most


class DailyRegistrations(BaseModel):
    """Number of users who registered on a day (UTC) with this registration source."""

    model_config = ConfigDict(frozen=True)

    # Strict: pydantic would take a number for seconds or milliseconds, as it guesses from its size.
    day: date = Field(strict=True)
    source: str
    registrations: int


def day_at(milliseconds: int) -> date:
    """Return the day (UTC) of a time in milliseconds since 1970, as Elasticsearch counts them."""
    return (_EPOCH + timedelta(milliseconds=milliseconds)).date()


def document_id(record: EventRecord[UserEvent]) -> str | None:
    """Return `<day>/<source>/<partition>`, at most 512 bytes, None if not a registration."""
    if not isinstance(record.event, UserRegistered):
        return None
    source = _source_in_id(record.event.registration_source)
    return f"{_day(record)}/{source}/{record.source.partition}"


def document_version(record: EventRecord[UserEvent]) -> int:
    """Return a version that grows with every registration: their events are in one partition.

    Not by the offset of the command: a command topic that is created again begins at 0.
    """
    return record.offset + 1


def count(document: Mapping[str, Any] | None, record: EventRecord[UserEvent]) -> dict[str, Any]:
    """Return the document with this registration: a new dict, the old one is not changed.

    Raises:
        PartitionFatal: the event is not a registration.
    """
    if not isinstance(record.event, UserRegistered):
        raise PartitionFatal(f"{record.type} is not a registration")
    return {
        "id": document_id(record),
        "version": document_version(record),
        "day": _day(record),
        "source": record.event.registration_source,
        "partition": record.source.partition,
        "registrations": 1 + (document["registrations"] if document else 0),
    }


def _day(record: EventRecord[UserEvent]) -> str:
    return record.timestamp.astimezone(timezone.utc).date().isoformat()


def _source_in_id(source: str) -> str:
    """Return the source, or a hash of one that is too long or starts with `#`: no two collide."""
    encoded = source.encode(errors="surrogatepass")
    if len(encoded) <= _MAX_SOURCE_BYTES and not source.startswith("#"):
        return source
    return "#" + sha256(encoded).hexdigest()


_ID = UUID(int=1)
_EVENING = datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=timezone.utc)
_HISTORY: tuple[tuple[datetime, UserEvent], ...] = (
    (_EVENING, UserRegistered("anna@example.org", "Anna", "Müller", "web")),
    (_EVENING, UserProfileUpdated(last_name="Meier")),
    (_EVENING, UserDeactivated()),
    (_EVENING, UserRegistered("b@example.org", "Ben", "Li", "web")),
    (_EVENING + timedelta(microseconds=1), UserRegistered("c@example.org", "Mei", "Li", "web")),
    (_EVENING, UserRegistered("d@example.org", "Zoë", "Li", "#web")),
    (_EVENING, UserRegistered("e@example.org", "José", "Li", "例" * 200)),
)

EXAMPLES: tuple[EventRecord[UserEvent], ...] = tuple(
    EventRecord(
        id=_ID,
        aggregate_id="anna",
        sequence=1,
        timestamp=at,
        command_id=_ID,
        correlation_id=None,
        causation_id=None,
        source=Source("users.commands.v1", 0, offset),
        event=event,
        offset=2 * offset,  # each transaction ends with a marker, which has an offset, too
    )
    for offset, (at, event) in enumerate(_HISTORY)
)
"""Example events for this view's definition, as `models/user_history.py` is for users."""
