"""Targets of benchmarks, and whether a result meets them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.rig.result import OURS, Result


@dataclass(frozen=True)
class Target:
    """A bound for the median of a figure, or for its ratio to another contestant's median.

    Attributes:
        figure: Name of the figure.
        least: Lower bound, if there is one.
        most: Upper bound, if there is one.
        of: Name of the contestant.
        to: Name of the other contestant, if the bound is for a ratio.
    """

    figure: str
    least: float | None = None
    most: float | None = None
    of: str = OURS
    to: str | None = None

    def found(self, result: Result) -> float | None:
        """Return the figure or the ratio that was measured, or None if it was not."""
        medians = {
            contest.name: contest.spread(self.figure).median
            for contest in result.contests
            if self.figure in contest.figures
        }
        ours = medians.get(self.of)
        if ours is None or self.to is None:
            return ours
        theirs = medians.get(self.to)
        return None if theirs is None else ours / theirs

    def is_met(self, found: float) -> bool:
        """Check whether `found` is within the bounds."""
        return (self.least is None or found >= self.least) and (
            self.most is None or found <= self.most
        )

    def __str__(self) -> str:
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        times = "" if self.to is None else f" times {self.to}"
        whose = "" if self.of == OURS else f"{self.of}: "
        return f"{whose}{self.figure}: {bound}{times}"
