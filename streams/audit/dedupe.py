"""Which repeated commands had to be duplicates: the dedupe windows, replayed from the outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from models.outcomes import (
    Accepted,
    Duplicate,
    FirstAcceptance,
    FirstRejection,
)
from streams.audit.report import ViolationKind
from streams.state.snapshot import DEDUPE_WINDOW

Reply = FirstAcceptance | FirstRejection


class SeenOutcome(NamedTuple):
    """The checked part of an outcome; a million of them have to fit in memory."""

    offset: int
    status: str
    command_id: UUID | None
    aggregate_id: str | None
    reply: Reply | None
    """The acceptance or rejection that it states or repeats, without the token."""
    token_offset: int | None
    """Offset of the command in its token; None without a token of this aggregate and sequence."""
    decided_at: int
    """Offset of the record in whose turn it was decided: another one if it was parked."""
    waits_at: int | None = None
    """Offset of the parked command that it repeats."""


class DedupeWindows:
    """The dedupe window of each aggregate, replayed from the outcomes.

    A command that is repeated within the window is a duplicate and gets the same reply again. One
    that is repeated later is decided again, as documented.
    """

    def __init__(self, exists_at: Callable[[str, int], bool], *, complete: bool) -> None:
        """Create empty windows.

        Args:
            exists_at: As in `OutcomeAudit.conclude`.
            complete: Whether no outcome has expired.
        """
        self._exists_at = exists_at
        self._complete = complete
        self._windows: dict[str, list[SeenOutcome]] = defaultdict(list)

    def check(self, source: int, outcome: SeenOutcome) -> tuple[str, ViolationKind] | None:
        """Check and add the next outcome in the order of deciding; return its violation."""
        if outcome.reply is None or outcome.aggregate_id is None:
            return None
        window = self._windows[outcome.aggregate_id]
        first = next((old for old in window if old.command_id == outcome.command_id), None)
        name = f"the command {outcome.command_id} at offset {source}"
        if outcome.status == Duplicate.status:
            if first is None:
                if self._complete:
                    return f"{name} is a duplicate of none before it", "diverged"
            elif (first.reply, first.token_offset) != (outcome.reply, outcome.token_offset):
                line = f"{name} is a duplicate and got another reply than the first time"
                return line, "diverged"
            return None
        exists = window or self._exists_at(outcome.aggregate_id, outcome.decided_at)
        if outcome.status == Accepted.status or exists:
            window.append(outcome)
            del window[:-DEDUPE_WINDOW]
        if first is not None:
            again = f"{name} was decided again as {outcome.status}; it was {first.status} before"
            return again, "doubled"
        return None
