"""`cqrs get`, `search`, `active` and `new`: queries about users from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from pydantic.alias_generators import to_camel

from agents.client import open_queries, pages_by_email
from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, cell, print_table
from deploy.cli.terminal import NumberRange, as_typed, examples
from deploy.cli.terminal import waiting as showing
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

_COLUMNS = ("id", "email", "firstName", "lastName", "isActive", "registeredAt")
_NAME_COLUMNS = 14


@dataclass(frozen=True)
class UserPage:
    """A page of users."""

    items: Sequence[UserReadModel]
    cursor: str | None
    """For `--cursor`: where the next page begins. None if there is no other page, or if the
    command has no cursor."""


_USER = Output(UserReadModel, columns=_COLUMNS)
_PAGE = Output(UserPage, line=UserReadModel, columns=_COLUMNS, in_pipes="tsv")

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
            type=NumberRange(min=0, min_open=True),
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
@_USER.option
@click.pass_context
def get(ctx: click.Context, /, user_id: str, form: Form, **waiting: Any) -> None:
    """Show one user, active or not; exit code 1 if there is no such user."""
    with naming_arguments():
        query = GetUserById(user_id)
    user: UserReadModel | None = execute(query, waiting)
    if user is None:
        click.echo(f"cqrs: no user has the id {user_id}", err=True)
        ctx.exit(ExitCode.NO)
    _USER.write(form, user, lambda: _print_user(user))


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
@_PAGE.option
def email(
    fragment: str,
    limit: int,
    cursor: str | None,
    everything: bool,
    form: Form,
    **waiting: Any,
) -> None:
    """Find users whose email address contains FRAGMENT, active or not.

    Upper and lower case are the same. Every character stands for itself, also `.`, `*` and `?`.
    With --all, JSON is one user per line.
    """
    with naming_arguments():
        query = GetUsersByEmail(
            fragment, MAX_LIMIT if everything and form != "table" else limit, cursor
        )
    if not everything:
        page = execute(query, waiting)
        _print_page(page, form, more=f"--cursor {page.cursor}")
        return

    async def print_all() -> None:
        async with open_queries(load_settings()) as queries:
            async for page in pages_by_email(queries, query, **waiting):
                _print_page(page, "ndjson" if form == "json" else form, more="")

    asyncio.run(print_all())


@click.command(epilog=examples("cqrs active --limit 10 --offset 100"))
@_LIMIT
@waiting_options
@click.option(
    "--offset", default=0, show_default=True, type=click.IntRange(0), help="Users to skip."
)
@_PAGE.option
def active(limit: int, offset: int, form: Form, **waiting: Any) -> None:
    """List the active users in the order of their registration."""
    page = execute(GetActiveUsers(limit, offset), waiting)
    _print_page(page, form, more=f"--offset {offset + limit}")


@click.command(
    name="new",
    epilog=examples("cqrs new --json", "cqrs new --limit 1000 --cursor CURSOR --json"),
)
@_LIMIT
@waiting_options
@click.option("--cursor", help="Show who has come since: the cursor that the last page ended with.")
@_PAGE.option
def new(limit: int, cursor: str | None, form: Form, **waiting: Any) -> None:
    """List users in the order in which they arrived, for an export that continues later.

    Every page has a cursor. Nobody is missed who registers meanwhile, whatever time the command
    carries; an empty page says that nobody has come since. Users who were erased, or whose document
    Elasticsearch refuses at that time, are left out.
    """
    page = execute(GetNewUsers(limit, cursor), waiting)
    _print_page(page, form, more=f"--cursor {page.cursor}")


def execute(query: object, waiting: dict[str, Any]) -> Any:
    """Run a query and return its result; `waiting` has the values of `waiting_options`."""

    async def run() -> Any:
        async with open_queries(load_settings()) as queries:
            return await queries.execute(query, **waiting)

    with naming_arguments(), showing("Waiting for the answer"):
        return asyncio.run(run())


@contextmanager
def naming_arguments() -> Iterator[None]:
    """Name the fields of a query in its error as they are typed."""
    try:
        yield
    except QueryError as error:
        raise QueryError(as_typed(str(error), _ARGUMENTS)) from None


def _print_user(user: UserReadModel) -> None:
    for name, value in user:
        click.echo(f"{to_camel(name):<{_NAME_COLUMNS}}{cell(value)}")


def _print_page(page: Page[UserReadModel], form: Form, more: str) -> None:
    """Print a page, maybe one of many; `more` are the options that show the next one."""
    document = UserPage(page.items, page.cursor)
    _PAGE.write(form, document, lambda: _table_of(page), lines=page.items, is_part=True)
    if form == "json":
        return
    count = len(page.items)
    found = {0: "no users", 1: "1 user"}.get(count, f"{count} users")
    # In other forms than the table it is no part of the data.
    line = f"{found}; for more add {more}" if page.cursor and more else found
    click.echo(line, err=form != "table")


def _table_of(page: Page[UserReadModel]) -> None:
    if page.items:
        print_table(
            ("id", "email", "name", "active", "registered"),
            [
                (
                    user.id,
                    user.email,
                    f"{user.first_name} {user.last_name}",
                    user.is_active,
                    user.registered_at,
                )
                for user in page.items
            ],
            droppable=("registered", "active", "name"),
        )
