"""`cqrs views`: show the indices of a view, build a new one, switch between them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from agents.views import VIEWS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import NumberRange, confirm, examples, progress_bar
from deploy.colour import Verdict
from deploy.environment import load_settings
from streams.views import cutover
from streams.views import rebuild as rebuilding
from streams.views.status import IndexStatus, status_of
from streams.worker.process import tune_gc


@dataclass(frozen=True)
class ServedIndex:
    """Which index serves the queries of a view now."""

    view: str
    index: str


@dataclass(frozen=True)
class PrunedIndices:
    """Which indices of a view were deleted."""

    view: str
    deleted: list[str]


@dataclass(frozen=True)
class PrunedIndex:
    """An index of a view that was deleted."""

    view: str
    deleted: str


_INDICES = Output(
    list[IndexStatus],
    columns=("name", "state", "documents", "behind", "seconds", "complete", "trouble"),
)
_SERVED = Output(ServedIndex, columns=("view", "index"))
_PRUNED = Output(PrunedIndices, line=PrunedIndex, columns=("deleted",))

_ADDS_UP: Mapping[bool | None, Verdict] = {
    True: Verdict("yes", "good"),
    False: Verdict("NO", "bad"),
    None: Verdict("not checked", None),
}

_VIEW = click.argument("view", type=click.Choice(list(VIEWS)), default=next(iter(VIEWS)))
_TIMEOUT = click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=NumberRange(min=0),
    help="Seconds to wait until the view workers have caught up.",
)


@click.group()
def views() -> None:
    """Show, rebuild, roll back or prune the views.

    A view is an alias on one of its indices. `rebuild` builds another index and moves the alias
    when that index is complete. The former index is kept up to date until `prune`, so `rollback`
    loses nothing. There is no downtime. The default view is `user-views`.
    """


@views.command(epilog=examples("cqrs views status", "cqrs views status user-views --check --json"))
@_VIEW
@click.option(
    "--check",
    is_flag=True,
    help="Read all documents that a program of this version wrote, and check that they add up to "
    "the events.",
)
@_INDICES.option
@click.pass_context
def status(ctx: click.Context, view: str, check: bool, form: Form) -> None:
    """Show a view's indices, and how far they are behind the events.

    Exit code 1 if no index serves queries, or the one that does cannot, or if --check finds
    an index whose documents do not add up to its events; 75 if --check could not find that out of
    the index that serves or of all that this program made, as when workers write all the time.
    """
    with progress_bar() as progress:
        indices = asyncio.run(
            status_of(load_settings(), VIEWS[view], check=check, progress=progress)
        )
    _INDICES.write(form, indices, lambda: _print(view, indices))
    serving = [index for index in indices if index.state == "serving" and not index.trouble]
    if not serving or any(index.complete is False for index in indices):
        ctx.exit(ExitCode.NO)
    unknown = [
        one.name
        for one in indices
        if check and one.complete is None and (one.of_this_program or one in serving)
    ]
    if unknown:
        click.echo(
            f"cqrs: whether the documents add up could not be found out of {', '.join(unknown)}: "
            "run this again, best when little is written",
            err=True,
        )
        ctx.exit(ExitCode.UNKNOWN)


@views.command(epilog=examples("cqrs views rebuild", "cqrs views rebuild user-views --timeout 600"))
@_VIEW
@_TIMEOUT
@click.option(
    "--abandon-serving",
    is_flag=True,
    help="Give up the index that serves queries: it is lost, and the new one need not catch up. "
    "Also gives up users whose keys were lost.",
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Number of processes that load and check. More are quicker only where cores are free.",
)
@_SERVED.option
def rebuild(view: str, timeout: float, abandon_serving: bool, processes: int, form: Form) -> None:
    """Build a new index from the first event, then serve that one.

    Queries and workers continue with the former index meanwhile. If it is interrupted, run it
    again: it continues where it stopped. Run it when a view worker reports that another program
    made the index, and start view workers of the new program beside those of the old one.
    """
    tune_gc()
    with progress_bar() as progress:
        state = asyncio.run(
            rebuilding.rebuild(
                load_settings(),
                VIEWS[view],
                timeout=timeout,
                progress=progress,
                abandon_serving=abandon_serving,
                processes=processes,
            )
        )
    line = f"{view} is {state.name} now; `cqrs views prune {view}` deletes the former one"
    _write_served(form, view, state.name, line)


@views.command(epilog=examples("cqrs views rollback"))
@_VIEW
@_TIMEOUT
@_SERVED.option
def rollback(view: str, timeout: float, form: Form) -> None:
    """Serve the index again that was served before the last rebuild."""
    with progress_bar() as progress:
        state = asyncio.run(
            cutover.roll_back(load_settings(), VIEWS[view], timeout=timeout, progress=progress)
        )
    _write_served(form, view, state.name, f"{view} is {state.name} again")


@views.command(epilog=examples("cqrs views prune", "cqrs views prune user-views --yes"))
@_VIEW
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_PRUNED.option
def prune(view: str, yes: bool, form: Form) -> None:
    """Delete indices that are not served: former and unfinished ones.

    Nothing is deleted while no index serves queries.
    """
    settings = load_settings()
    names = asyncio.run(cutover.prunable(settings, VIEWS[view]))
    if names:
        if not yes:
            confirm(f"Delete {', '.join(names)}?")
        asyncio.run(cutover.prune(settings, VIEWS[view], names))
    line = f"deleted {', '.join(names)}" if names else "nothing to delete"
    _PRUNED.write(
        form,
        PrunedIndices(view, list(names)),
        lambda: click.echo(f"{view}: {line}"),
        lines=[PrunedIndex(view, name) for name in names],
    )


def _write_served(form: Form, view: str, index: str, line: str) -> None:
    _SERVED.write(form, ServedIndex(view, index), lambda: click.echo(line))


def _print(view: str, indices: Sequence[IndexStatus]) -> None:
    if indices:
        print_indices(indices)
    else:
        role = VIEWS[view].role
        click.echo(f"{view} has no index yet: a view worker creates it (cqrs worker {role})")


def _behind(index: IndexStatus) -> Verdict:
    if index.behind is None:
        return Verdict("?", "late")
    return Verdict(f"{index.behind:,}", "late" if index.behind else None)


def print_indices(indices: Sequence[IndexStatus]) -> None:
    """Print a table of the indices, one per row."""
    headers = ["index", "state", "documents", "behind", "s behind", "adds up", "made by"]
    rows: list[list[object]] = [
        [
            index.name,
            index.state,
            "?" if index.documents is None else f"{index.documents:,}",
            _behind(index),
            "?" if index.seconds is None else f"{index.seconds:,.1f}",
            _ADDS_UP[index.complete],
            "this program" if index.of_this_program else "another one",
        ]
        for index in indices
    ]
    if any(index.trouble for index in indices):
        headers.append("trouble")
        for row, index in zip(rows, indices, strict=True):
            row.append(Verdict(index.trouble or "", "bad"))
    print_table(
        headers,
        rows,
        right=("documents", "behind", "s behind"),
        prose=("trouble",),
        droppable=("s behind", "made by"),
    )
