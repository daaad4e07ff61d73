"""`cqrs get`, `search`, `active` and `new`: queries about users from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from agents.client import open_queries, pages_by_email
from deploy.cli.exit_codes import ExitCode
from deploy.cli.terminal import as_typed, examples
from deploy.environment import load_settings
from models.errors import QueryError
from models.queries import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    GetActiveUsers,
    GetNewUsers,
    GetUserById,
    GetUsersByEmail,
    Page,
)
from models.user_view import UserReadModel
from streams.buses import DEFAULT_WAIT_S

# Fields of queries that are no options of the same name.
_ARGUMENTS = {"user_id": "ID", "email": "FRAGMENT", "first_day": "--from", "last_day": "--to"}

_LIMIT = click.option(
    "--limit",
    default=DEFAULT_LIMIT,
    show_default=True,
    type=click.IntRange(1, MAX_LIMIT),
    help="Users per page.",
)


def waiting_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every query that let it wait for writes: --at-least and --timeout."""
    for option in (
        click.option(
            "--timeout",
            default=DEFAULT_WAIT_S,
            show_default=True,
            type=click.FloatRange(min=0, min_open=True),
            help="Seconds to wait for the writes of --at-least.",
        ),
        click.option(
            "--at-least",
            multiple=True,
            metavar="TOKEN",
            help="Wait until the result includes this write. The token is in the write's outcome; "
            "`cqrs send --wait` prints it. May be given several times.",
        ),
    ):
        function = option(function)
    return function


@click.command(epilog=examples("cqrs get anna", "cqrs get anna --json --at-least TOKEN"))
@click.argument("user_id", metavar="ID")
@waiting_options
@click.option("--json", "as_json", is_flag=True, help="Print the user as one JSON object.")
@click.pass_context
def get(ctx: click.Context, /, user_id: str, as_json: bool, **waiting: Any) -> None:
    """Show one user, active or not; exit code 1 if there is no such user."""
    with naming_arguments():
        query = GetUserById(user_id)
    user: UserReadModel | None = execute(query, waiting)
    if user is None:
        click.echo(f"cqrs: no user has the id {user_id}", err=True)
        ctx.exit(ExitCode.NO)
    elif as_json:
        click.echo(user.model_dump_json())
    else:
        _print_user(user)


@click.group()
def search() -> None:
    """Find users by a part of a field."""


@search.command(
    epilog=examples(
        "cqrs search email .mueller@EX",
        "cqrs search email .mueller@EX --at-least TOKEN --timeout 5",
    )
)
@click.argument("fragment")
@_LIMIT
@waiting_options
@click.option("--cursor", help="Show the next page: the cursor that the last page ended with.")
@click.option("--all", "everything", is_flag=True, help="Show all pages.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: an object with items and cursor, or with --all one user per line.",
)
def email(
    fragment: str,
    limit: int,
    cursor: str | None,
    everything: bool,
    as_json: bool,
    **waiting: Any,
) -> None:
    """Find users whose email address contains FRAGMENT, active or not.

    Upper and lower case are the same. Every character stands for itself, also `.`, `*` and `?`.
    """
    with naming_arguments():
        query = GetUsersByEmail(fragment, MAX_LIMIT if everything and as_json else limit, cursor)
    if not everything:
        page = execute(query, waiting)
        _print_page(page, as_json, more=f"--cursor {page.cursor}")
        return

    async def print_all() -> None:
        async with open_queries(load_settings()) as queries:
            async for page in pages_by_email(queries, query, **waiting):
                if as_json:
                    for user in page.items:
                        click.echo(user.model_dump_json())
                else:
                    _print_page(page, as_json=False, more="")

    asyncio.run(print_all())


@click.command(epilog=examples("cqrs active --limit 10 --offset 100"))
@_LIMIT
@waiting_options
@click.option(
    "--offset", default=0, show_default=True, type=click.IntRange(0), help="Users to skip."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object with items and cursor."
)
def active(limit: int, offset: int, as_json: bool, **waiting: Any) -> None:
    """List the active users in the order of their registration."""
    page = execute(GetActiveUsers(limit, offset), waiting)
    _print_page(page, as_json, more=f"--offset {offset + limit}")


@click.command(
    name="new",
    epilog=examples("cqrs new --json", "cqrs new --limit 1000 --cursor CURSOR --json"),
)
@_LIMIT
@waiting_options
@click.option("--cursor", help="Show who has come since: the cursor that the last page ended with.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object with items and cursor."
)
def new(limit: int, cursor: str | None, as_json: bool, **waiting: Any) -> None:
    """List users in the order in which they arrived, for an export that continues later.

    Every page has a cursor. Nobody is missed who registers meanwhile, whatever time the command
    carries; an empty page says that nobody has come since.
    """
    page = execute(GetNewUsers(limit, cursor), waiting)
    _print_page(page, as_json, more=f"--cursor {page.cursor}")


def execute(query: object, waiting: dict[str, Any]) -> Any:
    """Run a query and return its result; `waiting` has the values of `waiting_options`."""

    async def run() -> Any:
        async with open_queries(load_settings()) as queries:
            return await queries.execute(query, **waiting)

    return asyncio.run(run())


@contextmanager
def naming_arguments() -> Iterator[None]:
    """Name the fields of a query in its error as they are typed."""
    try:
        yield
    except QueryError as error:
        raise QueryError(as_typed(str(error), _ARGUMENTS)) from None


def _print_user(user: UserReadModel) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for name, value in user.model_dump(mode="json").items():
        table.add_row(Text(name, style="bold"), Text(str(value), overflow="fold"))
    Console().print(table)


def _print_page(page: Page[UserReadModel], as_json: bool, more: str) -> None:
    """Print a page; `more` are the options that show the next one, if there is one."""
    if as_json:
        items = [user.model_dump(mode="json") for user in page.items]
        click.echo(json.dumps({"items": items, "cursor": page.cursor}, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "email", "name", "active", "registered")
    for user in page.items:
        cells = (
            user.id,
            user.email,
            f"{user.first_name} {user.last_name}",
            "yes" if user.is_active else "no",
            f"{user.registered_at:%Y-%m-%d %H:%M:%S}",
        )
        # as Text: in a str rich takes [brackets] for markup
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    if page.items:
        Console().print(table)
    count = len(page.items)
    found = {0: "no users", 1: "1 user"}.get(count, f"{count} users")
    click.echo(f"{found}; for more add {more}" if page.cursor and more else found)
