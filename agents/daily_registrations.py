"""The view `daily-registrations`: how many users registered on a day, by registration source.

How events become its documents is in `models/daily_registrations.py`.
"""

from __future__ import annotations

from agents.users import USERS
from models import daily_registrations
from models.events import USER_EVENTS, UserEvent
from models.messages import EventRecord
from streams.elasticsearch.index import Document, IndexDefinition
from streams.views.projection import Projection, View

_INDEX = IndexDefinition(
    alias="daily-registrations",
    properties={
        "day": {"type": "date", "format": "strict_date"},
        "source": {"type": "keyword"},
        "partition": {"type": "integer"},
        "registrations": {"type": "long"},
    },
)


class RegistrationsProjection(Projection[UserEvent]):
    """One document per day, source and partition, from registrations only."""

    def key(self, record: EventRecord[UserEvent]) -> str | None:
        """Return the document's id, or None if the event is not a registration."""
        return daily_registrations.document_id(record)

    def version(self, record: EventRecord[UserEvent]) -> int:
        """Return the version, which follows from the offset of the event."""
        return daily_registrations.document_version(record)

    def fold(self, document: Document | None, record: EventRecord[UserEvent]) -> Document:
        """Return the document with one registration more."""
        return daily_registrations.count(document, record)

    def events_in(self, document: Document) -> int:
        """Return the number of registrations."""
        return int(document["registrations"])

    def partition(self, document: Document, partitions: int) -> int:
        """Return the partition in the document."""
        return int(document["partition"])


DAILY_REGISTRATIONS = View(
    aggregate=USERS.name,
    events=USER_EVENTS,
    index=_INDEX,
    projection=RegistrationsProjection(),
    app_id="users-daily-registrations",
    role="registrations",
    worker="agents.daily_registrations_worker",
    examples=daily_registrations.EXAMPLES,
)
