"""`cqrs registrations`: how many users registered on each day, by registration source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import click

from deploy.cli.queries import execute, naming_arguments, waiting_options
from deploy.cli.terminal import examples
from models.daily_registrations import DailyRegistrations
from models.queries import GetDailyRegistrations

_DEFAULT_DAYS = 30
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command(
    epilog=examples(
        "cqrs registrations",
        "cqrs registrations --from 2026-01-01 --to 2026-01-31 --source web --json",
    )
)
@click.option(
    "--from", "first", type=_DAY, metavar="DAY", help="First day. [default: 29 days before --to]"
)
@click.option("--to", "last", type=_DAY, metavar="DAY", help="Last day. [default: today]")
@click.option("--source", help="Count only this registration source.")
@waiting_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def registrations(
    first: datetime | None,
    last: datetime | None,
    source: str | None,
    as_json: bool,
    **waiting: Any,
) -> None:
    """Show how many users registered on each day, by registration source.

    Days are in UTC, written as 2026-01-31. The view needs a worker: `cqrs worker registrations`.
    """
    last_day = (last or datetime.now(timezone.utc)).date()
    first_day = first.date() if first else _days_before(last_day, _DEFAULT_DAYS - 1)
    with naming_arguments():
        query = GetDailyRegistrations(first_day, last_day, source)
    found: Sequence[DailyRegistrations] = execute(query, waiting)
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in found], ensure_ascii=False))
    else:
        _print(query, found)


def _days_before(day: date, days: int) -> date:
    return date.fromordinal(max(1, day.toordinal() - days))


def _print(query: GetDailyRegistrations, found: Sequence[DailyRegistrations]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if found:
        table = Table("day", "source", "registrations")
        table.columns[2].justify = "right"
        for one in found:
            # as Text: in a str rich takes [brackets] for markup
            source = Text(one.source, overflow="fold")
            table.add_row(str(one.day), source, f"{one.registrations:,}")
        Console(highlight=False).print(table)
    total = sum(one.registrations for one in found)
    click.echo(f"{total:,} registrations from {query.first_day} to {query.last_day}")
