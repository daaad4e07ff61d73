"""What a benchmark has found, and how it is kept."""

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
"""The name of our contestant, and how the names of its variants begin."""


class Spread(NamedTuple):
    """Some rounds in three numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Of one round or more."""
        return cls(median(rounds), min(rounds), max(rounds))

    def overlaps(self, other: Spread) -> bool:
        """Whether some round of one may as well have been one of the other."""
        return self.low <= other.high and other.low <= self.high


@dataclass
class Contest:
    """What one contestant has shown: by the name of the figure, one per round."""

    name: str
    does: str
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, round_: Mapping[str, float]) -> None:
        """The figures of one more round."""
        for name, figure in round_.items():
            self.figures.setdefault(name, []).append(figure)

    def spread(self, figure: str) -> Spread:
        """Of all rounds."""
        return Spread.of(self.figures[figure])


@dataclass(frozen=True)
class Result:
    """All of it; `asdict` of this is the JSON.

    Attributes:
        load: The load average over one minute, at begin and end.
        contests: Ours first.
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
        """Keep it in a file."""
        write_atomically(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """The inverse of `write`.

        Raises:
            Fatal: the file holds something else.
        """
        try:
            data = json.loads(path.read_text())
            data["contests"] = [Contest(**one) for one in data["contests"]]
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Fatal(f"{path} holds no result of `cqrs bench`: {error!r}") from error


def readable(value: float) -> str:
    """A figure as it is shown: three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
