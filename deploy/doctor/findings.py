"""A finding: one line of what `cqrs doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploy.doctor.facts import NotKnown

Status = Literal["ok", "problem", "unknown", "unasked", "skipped"]

_STATUS_OF: dict[str, Status] = {
    "silent": "unknown",
    "unasked": "unasked",
    "refused": "problem",
    "hidden": "skipped",
}


@dataclass(frozen=True)
class Finding:
    """A fact, or a problem and its remedy."""

    group: str
    """What it is about: `Kafka`, `Topics`, `Workers` and so on."""
    subject: str
    """Which one: a topic, a role, a setting and so on."""
    status: Status
    """`unknown`: it could not be found out. `unasked`: it was not asked for, since something else
    is not known. `skipped`: there was no need or no way to ask."""
    line: str
    """What was found, and what to do."""


def count(number: int, noun: str) -> str:
    """Return `1 worker` or `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def not_known(group: str, subject: str, what: NotKnown) -> Finding:
    """Return the finding for what could not be found out."""
    return Finding(group, subject, _STATUS_OF[what.kind], what.why)
