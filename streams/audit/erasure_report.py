"""Result of an erasure check: what each place contains of an aggregate's personal data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone


@dataclass(frozen=True, order=True)
class Expiry:
    """Time at which data will be gone: a date, or `NEVER`.

    Expiries are ordered by time and `NEVER` is the last one, so `min` and `max` work.
    """

    date: datetime

    def __add__(self, delay: timedelta) -> Expiry:
        """Return the expiry that is later by `delay`; `NEVER` stays `NEVER`."""
        return self if self == NEVER else Expiry(self.date + delay)

    def isoformat(self) -> str | None:
        """Return the date in ISO 8601, or None for `NEVER`."""
        return None if self == NEVER else self.date.isoformat()


NEVER = Expiry(datetime.max.replace(tzinfo=timezone.utc))
"""Nothing removes the data."""


@dataclass
class ErasureFinding:
    """Finding for one place.

    Attributes:
        name: Name of the topic, index or other place.
        records: Number of the aggregate's records or documents there.
        readable: Number of those with personal data that can still be read.
        unseen: Number of records and indices there that could not be looked at.
        expires_at: When the readable and the unseen ones will be gone. Without meaning if there are
            none.
        note: One line for people, on what else matters there.
    """

    name: str
    records: int = 0
    readable: int = 0
    unseen: int = 0
    expires_at: Expiry = NEVER
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the personal data is gone, or will be by a known date."""
        return self.gone or self.expires_at != NEVER

    @property
    def gone(self) -> bool:
        """Whether everything was looked at, and nothing can be read."""
        return not (self.readable or self.unseen)

    @property
    def verdict(self) -> str:
        """The result for people: gone, gone by a date, NOT gone, or NOT looked at."""
        if self.gone:
            return "gone"
        if self.expires_at == NEVER:
            return "NOT gone" if self.readable else "NOT looked at"
        return f"gone by {self.expires_at.date:%Y-%m-%d %H:%M} UTC"


@dataclass
class ErasureReport:
    """Findings for one aggregate; `erased` says whether an event has erased it."""

    aggregate_id: str
    erased: bool = False
    findings: list[ErasureFinding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it was erased, and every finding is ok."""
        return self.erased and all(finding.ok for finding in self.findings)
