"""What was found of an aggregate's personal data, place by place."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class ErasureFinding:
    """What was found in one place.

    Attributes:
        name: Of the topic or the index.
        records: How many of the aggregate's there are.
        readable: How many of them have personal data that can still be read.
        gone_by: When that will be over; None if nothing is readable, or nothing will remove it.
        note: What else has to be known, one line.
    """

    name: str
    records: int = 0
    readable: int = 0
    expires_at: datetime | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is gone, or will be by a stated time."""
        return not self.readable or self.expires_at is not None

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.readable:
            return "gone"
        if self.expires_at is None:
            return "NOT gone"
        return f"gone by {self.expires_at:%Y-%m-%d %H:%M} UTC"


@dataclass
class ErasureReport:
    """What was found of one aggregate; `erased` says whether an event has ended it."""

    aggregate_id: str
    erased: bool = False
    places: list[ErasureFinding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it is erased and everything is gone, or will be by a stated time."""
        return self.erased and all(place.ok for place in self.places)
