"""Notices whose personal data was read without its key, although no event has erased it so far.

The documents do not tell both apart: an erased aggregate and one whose key was lost look the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from models.errors import Poison
from models.messages import EventRecord
from streams.encryption.cipher import may_be_sealed
from streams.kafka.records import Record


class Shredded:
    """Ids of the aggregates with an event that was read without its key, and not erased since."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        """Start with those of the events before."""
        self.ids = set(ids)

    def note(self, records: Sequence[Record], events: Sequence[EventRecord[Any] | Poison]) -> None:
        """Note the next events, with the record of each."""
        for record, found in zip(records, events, strict=True):
            if isinstance(found, Poison):
                continue
            if found.event.erases:
                self.ids.discard(found.aggregate_id)
            elif found.event.is_shredded and may_be_sealed(record.value):
                self.ids.add(found.aggregate_id)
