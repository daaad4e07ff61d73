"""`cqrs registrations`: how many users registered on each day, by registration source."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import click

from deploy.cli.output import Form, Output, print_table
from deploy.cli.queries import execute, naming_arguments, waiting_options
from deploy.cli.terminal import examples
from models.daily_registrations import DailyRegistrations
from models.queries import GetDailyRegistrations

_DEFAULT_DAYS = 30
_COLUMNS = ("day", "source", "registrations")


def _read_day(_ctx: click.Context, _option: click.Parameter, value: str | None) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("write it like 2026-01-31") from None


_OUTPUT = Output(list[DailyRegistrations], columns=_COLUMNS, in_pipes="tsv")


@click.command(
    epilog=examples(
        "cqrs registrations",
        "cqrs registrations --from 2026-01-01 --to 2026-01-31 --source web --json",
    )
)
@click.option(
    "--from",
    "first",
    metavar="DAY",
    callback=_read_day,
    help="First day. [default: 29 days before --to]",
)
@click.option("--to", "last", metavar="DAY", callback=_read_day, help="Last day. [default: today]")
@click.option("--source", help="Count only this registration source.")
@waiting_options
@_OUTPUT.option
def registrations(
    first: date | None,
    last: date | None,
    source: str | None,
    form: Form,
    **waiting: Any,
) -> None:
    """Show how many users registered on each day, by registration source.

    Days are in UTC, written as 2026-01-31. The view needs a worker: `cqrs worker registrations`.
    """
    last_day = last or datetime.now(timezone.utc).date()
    first_day = first or _days_before(last_day, _DEFAULT_DAYS - 1)
    with naming_arguments():
        query = GetDailyRegistrations(first_day, last_day, source)
    found: Sequence[DailyRegistrations] = execute(query, waiting)
    _OUTPUT.write(form, found, lambda: _table_of(found))
    if form != "json":
        total = sum(one.registrations for one in found)
        line = f"{total:,} registrations from {query.first_day} to {query.last_day}"
        click.echo(line, err=form != "table")


def _days_before(day: date, days: int) -> date:
    return date.fromordinal(max(1, day.toordinal() - days))


def _table_of(found: Sequence[DailyRegistrations]) -> None:
    if found:
        print_table(
            _COLUMNS,
            [(one.day, one.source, f"{one.registrations:,}") for one in found],
            right=("registrations",),
        )
