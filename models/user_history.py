"""A short history with everything that can happen to a user.

The documents that a view makes of it are part of the view's definition
(`streams/views/projection.py`): a change of a projection is noticed only if it changes them.
"""

from datetime import datetime, timedelta, timezone
from uuid import UUID

from models.events import (
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.messages import EventRecord, Source

_ID = UUID(int=1)
_START = datetime(2026, 11, 23, 12, 0, 0, 123_456, tzinfo=timezone.utc)
_HISTORY: tuple[UserEvent, ...] = (
    UserRegistered("Anna.Müller+news@Example.org", "Anna", "Müller", "web"),
    UserProfileUpdated(email="a@bücher.example"),
    UserProfileUpdated(first_name="Änne"),
    UserProfileUpdated(last_name="O'Brien"),
    UserDeactivated(),
    UserReactivated(),
    UserProfileUpdated("", "", ""),  # read after its key was destroyed
    UserErased(),
)

EXAMPLES: tuple[EventRecord[UserEvent], ...] = tuple(
    EventRecord(
        id=_ID,
        aggregate_id="anna",
        sequence=sequence,
        timestamp=_START + timedelta(seconds=sequence),
        command_id=_ID,
        correlation_id=None,
        causation_id=None,
        source=Source("users.commands.v1", 0, sequence),
        event=event,
    )
    for sequence, event in enumerate(_HISTORY, 1)
)
"""Events of one user, in order."""
