"""An outcome in one line, for people."""

from __future__ import annotations

from models.outcomes import (
    Accepted,
    Duplicate,
    FirstAcceptance,
    FirstParked,
    Outcome,
    Unparked,
)


def outcome_line(outcome: Outcome) -> str:
    """Return what became of a command, and why."""
    if isinstance(outcome, Accepted):
        return f"accepted, version {outcome.sequence}"
    if isinstance(outcome, Duplicate):
        first = outcome.of
        if isinstance(first, FirstAcceptance):
            return f"duplicate: accepted before, version {first.sequence}"
        if isinstance(first, FirstParked):
            return f"duplicate: parked before, at offset {first.offset}"
        return f"duplicate: rejected before, {first.code}: {first.reason}"
    if isinstance(outcome, Unparked):
        return f"unparked: {outcome.ended} commands ended, {outcome.left} left"
    return f"{outcome.status}, {outcome.code}: {outcome.reason}"
