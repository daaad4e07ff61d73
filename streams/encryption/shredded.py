"""Notices whose personal data was read without its key, although no event has erased it so far.

What is made of the events does not tell both apart: an aggregate that was erased and one whose key
was lost look the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.messages import EventRecord


class Shredded:
    """Ids of the aggregates with an event that was read without its key, and not erased since."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        """Start with those of the events before."""
        self.ids = set(ids)

    def note(self, record: EventRecord[Any]) -> None:
        """Note the next event of its partition."""
        if record.event.erases:
            self.ids.discard(record.aggregate_id)
        elif record.event.is_shredded:
            self.ids.add(record.aggregate_id)
