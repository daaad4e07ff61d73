"""The result of a benchmark, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from deploy.embedded.shared_files import write_atomically
from models.errors import Fatal

OURS = "cqrs-streams"
"""The name of our contestant; the names of its variants begin with it."""


class Spread(NamedTuple):
    """Median, lowest and highest value of one figure over all rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Return the spread of one round or more."""
        return cls(median(rounds), min(rounds), max(rounds))

    def overlaps(self, other: Spread) -> bool:
        """Return whether the ranges from the lowest to the highest round overlap."""
        return self.low <= other.high and other.low <= self.high


@dataclass
class Contest:
    """Figures of one contestant: by name, one value per round."""

    name: str
    does: str
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, round_: Mapping[str, float]) -> None:
        """Add the figures of one more round."""
        for name, figure in round_.items():
            self.figures.setdefault(name, []).append(figure)

    def spread(self, figure: str) -> Spread:
        """Return the spread of a figure over all rounds."""
        return Spread.of(self.figures[figure])


@dataclass(frozen=True)
class Result:
    """Result of a benchmark; `asdict` of it is the JSON.

    Attributes:
        benchmark: Its name.
        about: What its figures mean.
        began: When it started, in ISO 8601.
        machine: What it ran on.
        load: The load average over one minute, at the start and at the end.
        versions: Of everything that took part.
        seed: Of the random choices.
        size_name: Name of the size.
        size: Amounts of data, by name.
        rounds: Number of rounds.
        contests: Figures of each contestant; ours first.
    """

    benchmark: str
    about: str
    began: str
    machine: Mapping[str, str | int | float]
    load: Mapping[str, float]
    versions: Mapping[str, str]
    seed: int
    size_name: str
    size: Mapping[str, int]
    rounds: int
    contests: Sequence[Contest]

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_atomically(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote.

        Raises:
            Fatal: the file contains something else, or cannot be read.
        """
        try:
            data = json.loads(path.read_text())
            data["contests"] = [Contest(**one) for one in data["contests"]]
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Fatal(f"{path} holds no result of `cqrs bench`: {error!r}") from error


def readable(value: float) -> str:
    """Return a figure as text: the larger it is, the fewer decimals."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
