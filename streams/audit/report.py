"""Report of `verify`: the invariants, how much was checked of each, and the first violation.

The invariants have the numbers of the design. I6 (one owner per email) is not checked, because
nothing enforces it yet. `cqrs verify --json` prints the fields, in camelCase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from models.errors import Fatal
from streams.views.status import IndexStatus

INVARIANTS: Mapping[str, str] = {
    "I1": "an accepted command has its events once and one acceptance",
    "I2": "the events of an aggregate count 1, 2, 3 ... in the order of their commands",
    "I3": "the state table is the fold of the events",
    "I4": "every view document is the fold of its events, none is extra or missing",
    "I5": "a rejected command has no event",
    "I7": "every command is one of accepted, rejected, duplicate, dead-lettered, parked, once",
}


# Something is missing, exists more than once, or differs from what it has to be.
ViolationKind = Literal["lost", "doubled", "diverged"]


class NotCaughtUp(Fatal):
    """The workers did not reach in time what existed at the start, so nothing was checked."""


@dataclass
class InvariantResult:
    """Result of checking one invariant; `says` is the invariant itself."""

    name: str
    """Its number, such as `I4`."""
    says: str
    """What has to hold."""
    checked: int = 0
    """How many commands, events, states or documents were looked at."""
    violations: int = 0
    lost: int = 0
    """Number of violations where something is missing."""
    doubled: int = 0
    """Number of violations where something exists more than once."""
    first: str | None = None
    """The first violation in one line, with its place and without personal data."""

    @property
    def ok(self) -> bool:
        """Whether there was no violation."""
        return not self.violations

    def violated(self, line: str, kind: ViolationKind = "diverged") -> None:
        """Add a violation; `line` describes it and contains no personal data."""
        self.violations += 1
        self.lost += kind == "lost"
        self.doubled += kind == "doubled"
        if self.first is None:
            self.first = line


@dataclass(frozen=True, slots=True)
class CheckedRange:
    """Commands of a partition that could be checked: `start` <= offset < `end`."""

    partition: int
    start: int
    """The first offset."""
    end: int
    """The first offset that is not part of it."""


@dataclass
class Report:
    """Results for all invariants, and numbers of what was read.

    Commands and outcomes are counted within `ranges`. Events, aggregates and documents are all that
    exist.
    """

    json_properties: ClassVar[tuple[str, ...]] = ("ok",)

    commands: int = 0
    """Commands in the checked ranges, as the next six."""
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    dead: int = 0
    """Those that are dead letters."""
    parked: int = 0
    """Those that wait at the end of the checked ranges."""
    controls: int = 0
    """Records that replayed or dropped parked commands."""
    events: int = 0
    """All that exist."""
    aggregates: int = 0
    """Those that have events: the users."""
    documents: int | None = None
    """Documents of the view; None if the view was not checked."""
    known_missing: int = 0
    """Documents that were refused, or whose id no document can have."""
    lag: int = 0
    """Offsets of the command topic after the checked ranges, at the end of the check."""
    seconds: float = 0.0
    """How long the check took, with waiting for the workers."""
    indices: list[IndexStatus] = field(default_factory=list)
    """Indices of the view, if it was checked."""
    ranges: list[CheckedRange] = field(default_factory=list)
    """What retention has left of the commands, by partition."""
    findings: dict[str, InvariantResult] = field(
        default_factory=lambda: {
            name: InvariantResult(name, says) for name, says in INVARIANTS.items()
        }
    )
    """What was found of each invariant, by its number."""

    @property
    def ok(self) -> bool:
        """Whether all invariants hold, and every index of this program was read."""
        return not self.unread and all(finding.ok for finding in self.findings.values())

    @property
    def unread(self) -> list[str]:
        """Names of the indices of this program that could not be read: I4 is not known there.

        One that was read amid a chunk is not among them (its `complete` is None): workers write to
        it, and only the serving one has to be complete now.
        """
        return [one.name for one in self.indices if one.of_this_program and one.documents is None]

    @property
    def lost(self) -> int:
        """Number of violations where something is missing."""
        return sum(finding.lost for finding in self.findings.values())

    @property
    def doubled(self) -> int:
        """Number of violations where something exists more than once."""
        return sum(finding.doubled for finding in self.findings.values())

    @property
    def diverged(self) -> int:
        """Number of the other violations: something differs from what it has to be."""
        violations = sum(finding.violations for finding in self.findings.values())
        return violations - self.lost - self.doubled

    @property
    def expired(self) -> int:
        """Number of offsets before the ranges, which retention made impossible to check."""
        return sum(checked.start for checked in self.ranges)

    @property
    def first_violation(self) -> str | None:
        """First violation of the broken invariant with the lowest number, in one line."""
        for finding in self.findings.values():
            if finding.first is not None:
                return f"{finding.name} is broken ({finding.says}): {finding.first}"
        return None
