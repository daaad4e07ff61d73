"""`cqrs views`: what the views' indices are, and making one anew while people read the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from agents.views import VIEWS
from deploy.cli.terminal import examples, progress_bar
from deploy.environment import load_settings
from streams.views import cutover
from streams.views import rebuild as rebuilding
from streams.views.status import IndexStatus, status_of
from streams.worker.process import tune_gc

if TYPE_CHECKING:
    from rich.table import Table

_VIEW = click.argument("view", type=click.Choice(list(VIEWS)), default=next(iter(VIEWS)))
_TIMEOUT = click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that the view workers get to catch up.",
)


@click.group()
def views() -> None:
    """Look after the views: how far they are, and making one anew without downtime.

    A view is an alias on one of its indices. A rebuild makes another index and moves the alias when
    that one is complete; the former is kept up to date until `prune`, so `rollback` loses nothing.
    """


@views.command(epilog=examples("cqrs views status", "cqrs views status user-views --check --json"))
@_VIEW
@click.option("--check", is_flag=True, help="Read all documents, and add them up.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, view: str, check: bool, as_json: bool) -> None:
    """Show the indices of a view, how far they are behind the events, and if they are complete.

    Exit code 1 if one that was checked does not add up to its events.
    """
    with progress_bar() as progress:
        found = asyncio.run(status_of(load_settings(), VIEWS[view], check=check, progress=progress))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        _print(view, found)
    ctx.exit(1 if any(one.complete is False for one in found) else 0)


@views.command(epilog=examples("cqrs views rebuild", "cqrs views rebuild user-views --timeout 600"))
@_VIEW
@_TIMEOUT
def rebuild(view: str, timeout: float) -> None:
    """Make the index of a view anew from the first event, and have people read that one.

    The one they read goes on meanwhile, and so do the workers. Stopped at any point it goes on
    where it was when it is run again. Run it when a worker says that the view was made by another
    program, with view workers of the new program beside those of the old one.
    """
    tune_gc()
    with progress_bar() as progress:
        state = asyncio.run(
            rebuilding.rebuild(load_settings(), VIEWS[view], timeout=timeout, progress=progress)
        )
    click.echo(f"{view} is {state.name} now; `cqrs views prune {view}` deletes the former one")


@views.command(epilog=examples("cqrs views rollback"))
@_VIEW
@_TIMEOUT
def rollback(view: str, timeout: float) -> None:
    """Have people read the index again that they read before the last rebuild."""
    with progress_bar() as progress:
        state = asyncio.run(
            cutover.roll_back(load_settings(), VIEWS[view], timeout=timeout, progress=progress)
        )
    click.echo(f"{view} is {state.name} again")


@views.command(epilog=examples("cqrs views prune", "cqrs views prune user-views --yes"))
@_VIEW
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(view: str, yes: bool) -> None:
    """Delete the indices of a view that nobody reads: former ones, and unfinished rebuilds."""
    settings = load_settings()
    with progress_bar() as progress:
        found = asyncio.run(status_of(settings, VIEWS[view], check=False, progress=progress))
    names = [one.name for one in found if one.state != "serving"]
    if not names:
        click.echo(f"{view}: nothing to delete")
        return
    if not yes:
        click.confirm(f"Delete {', '.join(names)}?", abort=True)
    asyncio.run(cutover.prune(settings, VIEWS[view], names))
    click.echo(f"{view}: deleted {', '.join(names)}")


def _print(view: str, found: Sequence[IndexStatus]) -> None:
    from rich.console import Console

    if found:
        Console(highlight=False).print(table_of(found))
    else:
        role = VIEWS[view].role
        click.echo(f"{view} has no index yet: a view worker makes it (cqrs worker {role})")


def table_of(found: Sequence[IndexStatus]) -> Table:
    """The indices, for people."""
    from rich.table import Table

    table = Table("index", "", "made by", "documents", "behind", "seconds", "adds up")
    table.columns[0].overflow = "fold"  # the whole name, for it is what people type
    for number in (3, 4, 5):
        table.columns[number].justify = "right"
    for one in found:
        table.add_row(
            one.name,
            one.state,
            "this program" if one.of_this_program else "another one",
            f"{one.documents:,}",
            f"{one.behind:,}",
            f"{one.seconds:,.1f}",
            {True: "yes", False: "NO", None: ""}[one.complete],
        )
    return table
