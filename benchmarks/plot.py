"""Plot the result of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from benchmarks.peers.extra import need
from benchmarks.rig.result import OURS, Result, Spread, readable

_PANELS = 2  # at most
_OURS, _THEIRS = "#1b6ca8", "#b8bec4"
_WIDTH_INCHES = 9.0
_LABEL_CHARACTERS = 34


class _Bar(NamedTuple):
    label: str
    spread: Spread
    is_ours: bool


def write_plot(result: Result, path: Path) -> None:
    """Write a PNG: for each contestant a bar (median) and a line (lowest to highest round).

    Raises:
        Fatal: matplotlib is missing.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    panels = _panels(result)
    heights = [0.8 + 0.42 * len(bars) for bars in panels.values()]
    figure = Figure(figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for (title, bars), (axis,) in zip(panels.items(), axes, strict=True):
        positions = range(len(bars))
        medians = [bar.spread.median for bar in bars]
        below = [bar.spread.median - bar.spread.low for bar in bars]
        above = [bar.spread.high - bar.spread.median for bar in bars]
        axis.barh(
            positions,
            medians,
            xerr=[below, above],
            color=[_OURS if bar.is_ours else _THEIRS for bar in bars],
            ecolor="#333333",
            capsize=3,
        )
        for position, bar in zip(positions, bars, strict=True):
            text = f"  {readable(bar.spread.median)}"
            axis.text(bar.spread.high, position, text, va="center", fontsize=9)
        axis.set_yticks(positions, [fill(bar.label, _LABEL_CHARACTERS) for bar in bars], fontsize=9)
        axis.set_xlim(0, 1.15 * max(bar.spread.high for bar in bars))
        axis.set_title(title, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panels(result: Result) -> dict[str, Sequence[_Bar]]:
    """Return the first figures that contestants share, or if none, all figures in one panel."""
    shared = [
        figure
        for figure in result.contests[0].figures
        if sum(figure in contest.figures for contest in result.contests) > 1
    ]
    if not shared:
        bars = [
            _Bar(figure, contest.spread(figure), is_ours=True)
            for contest in result.contests
            for figure in contest.figures
            if not figure.startswith("commands/s")  # these are conditions, not times
        ]
        return {result.benchmark: bars}
    return {
        figure: [
            _Bar(contest.name, contest.spread(figure), is_ours=contest.name.startswith(OURS))
            for contest in result.contests
            if figure in contest.figures
        ]
        for figure in shared[:_PANELS]
    }
