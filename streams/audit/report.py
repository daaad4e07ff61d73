"""What `verify` finds: the invariants, what was checked of each, and the first thing that broke it.

The numbers are those of the design; I6 (one owner per email) is not checked before uniqueness is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from models.errors import Fatal
from streams.views.status import IndexStatus

INVARIANTS: Mapping[str, str] = {
    "I1": "an accepted command has its events once and one acceptance",
    "I2": "the events of an aggregate count 1, 2, 3 ... in the order of their commands",
    "I3": "the state table is the fold of the events",
    "I4": "every view document is the fold of its events, none is extra or missing",
    "I5": "a rejected command has no event",
    "I7": "every command is one of accepted, rejected, duplicate, dead-lettered, once",
}


# What a violation is: something is missing, there twice, or other than it has to be.
ViolationKind = Literal["lost", "doubled", "diverged"]


class NotCaughtUp(Fatal):
    """The workers did not reach what there was at the start, so nothing can be said yet."""


@dataclass
class InvariantResult:
    """What was found of one invariant."""

    name: str
    says: str
    checked: int = 0
    violations: int = 0
    lost: int = 0
    """How many of the violations are something that is missing."""
    doubled: int = 0
    """How many are something that is there more than once."""
    first: str | None = None
    """The first violation, in one line that says where. It carries no personal data."""

    @property
    def ok(self) -> bool:
        """Whether nothing broke it."""
        return not self.violations

    def violated(self, line: str, kind: ViolationKind = "diverged") -> None:
        """Something breaks it."""
        self.violations += 1
        self.lost += kind == "lost"
        self.doubled += kind == "doubled"
        if self.first is None:
            self.first = line


@dataclass(frozen=True, slots=True)
class CheckedRange:
    """The commands of a partition that retention still let us check: `start` <= offset < `end`."""

    partition: int
    start: int
    end: int


@dataclass
class Report:
    """What was found of all of them, and what was counted on the way.

    Commands and outcomes are counted in the ranges that could be checked; events, aggregates and
    documents are all there are.
    """

    commands: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    dead: int = 0
    events: int = 0
    aggregates: int = 0
    documents: int | None = None  # None if the view was not looked at
    known_missing: int = 0  # documents that Elasticsearch refused, with their dead letters
    lag: int = 0  # positions of the command topic behind the checked range by now
    indices: list[IndexStatus] = field(default_factory=list)  # of the view, if it was looked at
    ranges: list[CheckedRange] = field(default_factory=list)
    findings: dict[str, InvariantResult] = field(
        default_factory=lambda: {
            name: InvariantResult(name, says) for name, says in INVARIANTS.items()
        }
    )

    @property
    def ok(self) -> bool:
        """Whether all invariants hold."""
        return all(finding.ok for finding in self.findings.values())

    @property
    def lost(self) -> int:
        """Commands, events and documents that are missing."""
        return sum(finding.lost for finding in self.findings.values())

    @property
    def doubled(self) -> int:
        """Outcomes, events and dead letters that are there more than once."""
        return sum(finding.doubled for finding in self.findings.values())

    @property
    def diverged(self) -> int:
        """What is there, once, and not as it has to be."""
        violations = sum(finding.violations for finding in self.findings.values())
        return violations - self.lost - self.doubled

    @property
    def expired(self) -> int:
        """Positions before the ranges, which retention did not let us check."""
        return sum(checked.start for checked in self.ranges)

    @property
    def first_violation(self) -> str | None:
        """The first broken invariant, by number, in one line."""
        for finding in self.findings.values():
            if finding.first is not None:
                return f"{finding.name} is broken ({finding.says}): {finding.first}"
        return None
