"""A finding: one line of what `cqrs doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploy.doctor.facts import NotKnown

Status = Literal["ok", "problem", "unknown", "skipped"]
"""`unknown`: it could not be found out. `skipped`: there was no need or no way to ask."""

_STATUS_OF: dict[str, Status] = {"silent": "unknown", "refused": "problem", "hidden": "skipped"}


@dataclass(frozen=True)
class Finding:
    """What is so, or what is wrong and what to do. The names of the fields are keys of `--json`."""

    group: str
    subject: str
    status: Status
    line: str


def count(number: int, noun: str) -> str:
    """Return `1 worker` or `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def not_known(group: str, subject: str, what: NotKnown) -> Finding:
    """Return the finding for what could not be found out."""
    return Finding(group, subject, _STATUS_OF[what.kind], what.why)
