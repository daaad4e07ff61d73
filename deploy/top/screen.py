"""The screen of `cqrs top`: tables that fit 80 columns, and show more where there is more room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.colour import COLOURS
from deploy.top.overview import Index, Latency, Overview, ParkedCommands, Partition, Unowned, Worker

# From this width on there is room for what is only nice to have.
_WIDE_COLUMNS = 120

# Lines around the rows of partitions: headings, rates, and what stands in the other tables.
_OTHER_LINES = 16

_OF_STATES: Mapping[str, str] = {
    "parked": COLOURS["bad"],
    "waiting": COLOURS["late"],
    "starting": COLOURS["late"],
    "running": COLOURS["good"],
}


def screen(found: Overview, width: int, height: int | None = None) -> RenderableType:
    """Return what is shown on a terminal of this size; without a height, everything."""
    wide = width >= _WIDE_COLUMNS
    most = None
    if height is not None:
        others = len(found.workers) + len(found.indices) + len(found.latencies) + _OTHER_LINES
        most = max(3, height - others)
    parts: list[RenderableType] = [_head(found), *_rates(found)]
    if found.partitions:
        parts.append(_partitions(found.partitions[:most], wide=wide))
    if most is not None and len(found.partitions) > most:
        left = found.partitions[most:]
        parts.append(Text(f"  and {len(left)} more: {_states_of(left)}", style="dim"))
    parts += [Text(_unowned(one), style=COLOURS["bad"]) for one in found.unowned]
    parts += [Text(line, style=COLOURS["late"]) for line in _where_to_look(found.partitions)]
    if found.parked.commands:
        parts.append(Text(_parked(found.parked), style=COLOURS["late"]))
    parts += [
        Text(
            f"dead letters of {stage}: {_count(number)} since its workers were started",
            COLOURS["bad"],
        )
        for stage, number in sorted(found.dead_letters.items())
        if number
    ]
    if found.indices:
        parts.append(_indices(found.indices, wide=wide))
    if found.latencies:
        parts.append(_latencies(found.latencies))
    answering = [worker for worker in found.workers if not worker.problem]
    if answering:
        parts.append(_workers(answering, wide=wide))
    parts += [Text(f"{one.target} {one.problem}", style=COLOURS["bad"]) for one in found.silent]
    return Group(*parts)


def _head(found: Overview) -> Text:
    clock = datetime.fromtimestamp(found.at).astimezone().strftime("%H:%M:%S")
    count, silent = len(found.workers), len(found.silent)
    line = Text(f"cqrs top  {clock}  ", style="bold")
    line.append(f"{count - silent} of {count} workers answer", COLOURS["bad" if silent else "good"])
    if found.seconds is not None:
        line.append(f"  rates and times of the last {found.seconds:.1f} s", "dim")
    return line


def _rates(found: Overview) -> Iterable[Text]:
    if found.events_per_second is None:
        return
    for what, rates in (
        ("commands", found.commands_per_second),
        ("events", {"": found.events_per_second} if found.commands_per_second else {}),
        ("transactions", found.transactions_per_second),
        ("dead letters", found.dead_letters_per_second),
    ):
        if not rates:
            continue
        line = Text(f"{what:<13}")
        line.append(f"{_rate(sum(rates.values())):>9}/s", "bold")
        shown = [f"{name} {_rate(rate)}" for name, rate in sorted(rates.items()) if name and rate]
        line.append(f"  {', '.join(shown)}", COLOURS["bad"] if what == "dead letters" else "dim")
        yield line


def _partitions(partitions: Sequence[Partition], *, wide: bool) -> Table:
    table = _table("topic")
    table.add_column("part", justify="right", no_wrap=True)
    _add_elastic(table, "worker")
    for name in ("state", "lag", "seconds", "per s", *(("position", "end", "quiet") * wide)):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for one in partitions:
        more = (_count(one.position), _count(one.end), _seconds(one.quiet_seconds))
        table.add_row(
            _elastic(one.topic),
            str(one.partition),
            _elastic(one.worker),
            Text(one.state, style=_OF_STATES.get(one.state, "")),
            _count(one.lag_records),
            _seconds(one.lag_seconds),
            _rate(one.per_second),
            *(more if wide else ()),
        )
    return table


def _indices(indices: Sequence[Index], *, wide: bool) -> Table:
    table = _table("index")
    table.add_column("state", no_wrap=True)
    columns = ("done", "written/s", "retries/s", *(("skipped/s", "refused/s") * wide))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in indices:
        rate = one.per_second.get
        table.add_row(
            _elastic(one.name),
            one.state,
            "-" if one.done is None else f"{_floor_percent(one.done)}%",
            _rate(rate("written")),
            _rate(one.retries_per_second),
            *((_rate(rate("skipped")), _rate(rate("refused"))) if wide else ()),
        )
    return table


def _latencies(latencies: Sequence[Latency]) -> Table:
    table = _table("time of")
    for name in ("p50", "p99", "per s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in latencies:
        table.add_row(
            _elastic(one.what), _time(one.p50, one), _time(one.p99, one), _rate(one.per_second)
        )
    return table


def _workers(workers: Sequence[Worker], *, wide: bool) -> Table:
    table = _table("worker", "group")
    columns = ("partitions", "CPU", "memory", *(("version",) * wide))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in workers:
        table.add_row(
            _elastic(one.target),
            _elastic(one.group or "-"),
            "standby" if one.partitions == 0 else str(one.partitions),
            "-" if one.cpu_percent is None else f"{one.cpu_percent:.0f}%",
            "-" if one.memory_bytes is None else f"{one.memory_bytes / 2**20:,.0f} MiB",
            *((one.version or "-",) if wide else ()),
        )
    return table


def _table(*names: str) -> Table:
    """Return a table whose first columns, with these names, become narrower if they have to."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    for name in names:
        _add_elastic(table, name)
    return table


def _add_elastic(table: Table, name: str) -> None:
    table.add_column(Text(name, no_wrap=True, overflow="ellipsis"))


def _elastic(text: str) -> Text:
    """Return the text for a cell that may be cut, but takes one line."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _states_of(partitions: Iterable[Partition]) -> str:
    counts: dict[str, int] = {}
    for one in partitions:
        counts[one.state] = counts.get(one.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _unowned(one: Unowned) -> str:
    numbers = ", ".join(map(str, one.partitions[:10])) + (", ..." if one.partitions[10:] else "")
    return f"no worker that answers has {one.topic}[{numbers}] for {one.group}"


def _parked(found: ParkedCommands) -> str:
    return (
        f"parked commands: {found.commands:,}, users: {found.aggregates:,}, the oldest for "
        f"{_seconds(found.oldest_seconds)}: see `cqrs dead list`"
    )


def _where_to_look(partitions: Iterable[Partition]) -> Iterable[str]:
    targets = sorted({one.worker for one in partitions if one.state in ("parked", "waiting")})
    if targets:
        yield f"why it is parked or waits: GET /ready, and the log, of {', '.join(targets)}"


def _time(seconds: float | None, of: Latency) -> str:
    if seconds is not None and seconds >= of.limit:
        return f"> {_seconds(of.limit)}"
    return _seconds(seconds)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if 0 < seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return "-"
    return f"{per_second:,.1f}" if 0 < per_second < 10 else f"{per_second:,.0f}"


def _floor_percent(share: float) -> str:
    """Return per cent that are 100 only at the end."""
    return f"{int(share * 1000) / 10:.1f}".removesuffix(".0")
