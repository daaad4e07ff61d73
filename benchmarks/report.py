"""Show results of benchmarks as tables or as a page, and what changed between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.catalogue import BENCHMARKS
from benchmarks.rig.result import Contest, Result, Spread, readable
from models.errors import Fatal

if TYPE_CHECKING:
    from rich.table import Table


class Row(NamedTuple):
    """One figure of one contestant; `ratio` is our median divided by its median."""

    contestant: str
    figure: str
    spread: Spread
    ratio: float | None


class Change(NamedTuple):
    """One figure in two runs; `ratio` is the later median divided by the earlier one."""

    contestant: str
    figure: str
    before: Spread
    after: Spread
    ratio: float

    @property
    def is_clear(self) -> bool:
        """Whether the spreads of the two runs do not overlap."""
        return not self.before.overlaps(self.after)


def rows(result: Result) -> Iterator[Row]:
    """Yield all figures, each compared with ours."""
    ours = result.contests[0]
    for contest in result.contests:
        for figure in contest.figures:
            spread = contest.spread(figure)
            comparable = contest is not ours and figure in ours.figures and spread.median
            ratio = ours.spread(figure).median / spread.median if comparable else None
            yield Row(contest.name, figure, spread, ratio)


def changes(before: Result, after: Result) -> list[Change]:
    """Return the figures that both runs measured.

    Raises:
        Fatal: they are of different benchmarks, sizes or seeds, and cannot be compared.
    """
    for name in ("benchmark", "size", "seed"):
        one, other = getattr(before, name), getattr(after, name)
        if one != other:
            raise Fatal(
                f"these two cannot be compared: {name} is {one} in one and {other} in the other"
            )
    later: dict[str, Contest] = {contest.name: contest for contest in after.contests}
    return [
        Change(
            contest.name,
            figure,
            first := contest.spread(figure),
            second := later[contest.name].spread(figure),
            second.median / first.median,
        )
        for contest in before.contests
        if contest.name in later
        for figure in contest.figures
        if figure in later[contest.name].figures
    ]


def table_of(result: Result) -> Table:
    """Return a result as a table for a terminal."""
    table = _table("", "", "median", "spread", "ours to it")
    for row in rows(result):
        table.add_row(row.contestant, row.figure, *_cells(row))
    return table


def comparison_of(before: Result, after: Result) -> Table:
    """Return the changes between two runs as a table for a terminal."""
    table = _table("", "", "before", "after", "ratio", "")
    for one in changes(before, after):
        table.add_row(
            one.contestant,
            one.figure,
            readable(one.before.median),
            readable(one.after.median),
            f"{one.ratio:.2f}",
            "clear" if one.is_clear else "spreads overlap",
        )
    return table


def markdown_of(results: Sequence[Result], *, plots: str | None = None) -> str:
    """Return a page such as `docs/performance.md`, in the order of the catalogue.

    With `plots` it shows the plot of each benchmark; the names of their files begin with `plots`.
    """
    order = list(BENCHMARKS)
    results = sorted(results, key=lambda result: order.index(result.benchmark))
    lines = [
        "# How fast it is, beside its peers",
        "",
        *_wrapped(
            "Generated from the results of `cqrs bench` by `cqrs bench report`: all figures were "
            "measured, on the machine that is named, in rounds in which every contestant ran once "
            "on the same servers. Shown are the median, the lowest and the highest round, and the "
            "median of ours divided by it. The load is that of one minute; afterwards the "
            "benchmark itself is part of it."
        ),
    ]
    lines += _targets(results)
    for result in results:
        lines += _section(result, plots)
    return "\n".join([*lines, ""])


def plot_name(plots: str, result: Result) -> str:
    """Return the file name of a benchmark's plot."""
    return f"{plots}-{result.benchmark}.png"


def _targets(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines that say which targets are met."""
    lines = []
    for result in results:
        for target in BENCHMARKS[result.benchmark].targets:
            found = target.found(result)
            if found is None:
                shown, verdict = "", "not measured"
            else:
                shown = readable(found) if target.to is None else f"{found:.2f}"
                verdict = "met" if target.is_met(found) else "**missed**"
            size = "" if result.size_name == "full" else f" (size {result.size_name})"
            lines.append(f"| {result.benchmark}{size} | {target} | {shown} | {verdict} |")
    if lines:
        yield from ("", "## Targets", "")
        yield from _wrapped(
            "Medians, for one worker on a machine whose cores the servers share. Where the time "
            "goes, and so why a target is missed, is in [`profiles/`](profiles/deciding.md)."
        )
        yield from ("", "| | target | found | |", "|---|---|--:|---|", *lines)


def _section(result: Result, plots: str | None) -> Iterator[str]:
    name = result.benchmark
    yield from ("", f"## {name.capitalize()}", "", *_wrapped(result.about), "")
    if plots is not None:
        yield from (f"![{name}: medians and spreads]({plot_name(plots, result)})", "")
    yield from ("| | | median | spread | ours to it |", "|---|---|--:|--:|--:|")
    for row in rows(result):
        yield f"| {row.contestant} | {row.figure} | {' | '.join(_cells(row))} |"
    yield ""
    for contest in result.contests:
        yield from _wrapped(f"- **{contest.name}**: {contest.does}", indent="  ")
    on = ", ".join(f"{what} {value}" for what, value in result.machine.items())
    sizes = ", ".join(f"{number:,} {what}" for what, number in result.size.items())
    versions = ", ".join(f"{what} {number}" for what, number in result.versions.items())
    load = result.load
    yield ""
    yield from _wrapped(
        f"{result.rounds} rounds on {result.began[:10]}; {sizes}; seed {result.seed}. On {on}, "
        f"which the servers share; load {load['begin']} before and {load['end']} after. {versions}."
    )
    yield from (
        "",
        f"    cqrs bench {name} --size {result.size_name} --rounds {result.rounds} "
        f"--seed {result.seed} --output {name}.json",
    )


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(text, 100, subsequent_indent=indent, break_long_words=False)


def _cells(row: Row) -> tuple[str, str, str]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return readable(row.spread.median), _range(row.spread), ratio


def _range(spread: Spread) -> str:
    return f"{readable(spread.low)} to {readable(spread.high)}"


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE)
    for column in table.columns[2:]:
        column.justify = "right"
    return table
