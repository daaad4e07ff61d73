"""The view `user-views`: its index; how events become its documents is in `models/user_view.py`."""

from __future__ import annotations

from agents.users import USERS
from models.events import USER_EVENTS, UserEvent
from models.messages import EventRecord
from models.queries import MAX_LIMIT
from models.user_history import EXAMPLES
from models.user_view import is_tombstone, project
from streams.elasticsearch.index import Document, IndexDefinition
from streams.elasticsearch.substring import ANALYSIS, MAPPING, fragment_text
from streams.views.projection import AggregateProjection, View

EMAIL_FRAGMENTS = "emailFragments"
"""The field in which fragments of the email address are searched."""

ORDER = ("registeredAt", "id")
"""The order of every list of users. No user's place in it changes: neither field ever does."""


def to_source(document: Document) -> Document:
    """Return the document with the field for substring search; a tombstone gets none."""
    if is_tombstone(document):
        return document
    return {**document, EMAIL_FRAGMENTS: fragment_text(document["email"])}


_INDEX = IndexDefinition(
    alias="user-views",
    properties={
        "email": {"type": "keyword"},
        "firstName": {"type": "keyword"},
        "lastName": {"type": "keyword"},
        "isActive": {"type": "boolean"},
        "registeredAt": {"type": "date"},
        "lastUpdated": {"type": "date"},
        EMAIL_FRAGMENTS: MAPPING,
    },
    search_only=(EMAIL_FRAGMENTS,),
    # Sorted like every list, so that the first page is at the front and a search can stop there
    settings={
        "sort": {"field": list(ORDER)},
        "analysis": ANALYSIS,
        # a query asks for one more than the page, to see whether there is a next one
        "max_result_window": MAX_LIMIT + 1,
    },
    to_source=to_source,
)


class UserProjection(AggregateProjection[UserEvent]):
    """One document per user."""

    def fold(self, document: Document | None, record: EventRecord[UserEvent]) -> Document:
        """Return the user's document after the event."""
        return project(document, record)


USER_VIEWS = View(
    aggregate=USERS.name,
    events=USER_EVENTS,
    index=_INDEX,
    projection=UserProjection(),
    app_id="users-views",
    role="views",
    worker="agents.user_views_worker",
    examples=EXAMPLES,
)
