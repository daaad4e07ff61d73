"""`cqrs send`: send one command and show its outcome, or send a file of commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO
from uuid import uuid4

import click
from click.core import ParameterSource
from pydantic import ValidationError

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, plain
from deploy.cli.send_file import SENT, send_lines
from deploy.cli.terminal import NumberRange, as_typed, examples, waiting
from deploy.colour import OF_OUTCOMES, marked
from deploy.environment import load_settings
from models.commands import (
    DeactivateUser,
    ReactivateUser,
    RegisterUser,
    UpdateUserProfile,
)
from models.errors import InvalidCommand
from models.messages import Command
from models.outcomes import (
    Accepted,
    Duplicate,
    FirstAcceptance,
    FirstParked,
    Outcome,
    Parked,
)
from models.queries import GetActiveUsers
from models.validation import explain
from streams.buses import DEFAULT_WAIT_S

_OUTCOME = Output(Outcome, columns=("status", "aggregateId", "sequence", "token", "code", "reason"))

# Fields of commands whose options have other names.
_OPTIONS = {"aggregate_id": "--id", "registration_source": "--source"}


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "cqrs send register --id anna --email anna@example.org --first-name Anna --last-name Li",
        "cqrs send update --id anna --email anna.mueller@example.org --wait",
        "token=$(cqrs send deactivate --id anna -o tsv | cut -f 4)",
        "cqrs generate 100000 | cqrs send --from -",
    ),
)
@click.option(
    "--from",
    "source",
    type=click.File("rb"),
    help="Send this file: JSON, one command per line; - reads standard input.",
)
@SENT.option
@click.pass_context
def send(ctx: click.Context, source: BinaryIO | None, form: Form) -> None:
    """Send one command and show its outcome, or send a file of commands.

    Lines of a file that are not valid commands are reported with their numbers and not sent; exit
    code 1 if there are any. The outcomes of a file are not shown: see `cqrs tail outcomes`.
    """
    if ctx.invoked_subcommand is None:
        if source is None:
            raise click.UsageError("give a command, or --from FILE")
        ctx.exit(send_lines(source, form))
    elif source is not None:
        raise click.UsageError("give either a command or --from FILE, not both")
    elif ctx.get_parameter_source("form") is not ParameterSource.DEFAULT:
        ctx.default_map = {ctx.invoked_subcommand: {"form": form}}


def _common(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command has."""
    for option in (
        _OUTCOME.option,
        click.option(
            "--timeout",
            type=NumberRange(min=0, min_open=True),
            help="Seconds to wait for the outcome, and with --wait then for searches. "
            "[default: CQRS_OUTCOME_TIMEOUT, or 30; 10 for searches]",
        ),
        click.option(
            "--wait",
            is_flag=True,
            help="Print the token (for --at-least of queries), then wait until searches see the "
            "change.",
        ),
        click.option(
            "--expected-version",
            type=click.IntRange(min=0),
            help="Reject the command unless the user has this version; 0: does not exist.",
        ),
        click.option(
            "--command-id",
            type=click.UUID,
            default=uuid4,
            help="Id of the command; a repeated id gets its first outcome again. "
            "[default: a new UUID]",
        ),
    ):
        function = option(function)
    return function


@send.command(
    epilog=examples("cqrs send register --email anna@example.org --first-name Anna --last-name Li")
)
@click.option("--id", "user", help="Id of the new user. [default: the id of the command]")
@click.option("--email", required=True, help="Email address of the user.")
@click.option("--first-name", required=True, help="First name of the user.")
@click.option("--last-name", required=True, help="Last name of the user.")
@click.option(
    "--source",
    default="cli",
    show_default=True,
    help="Registration source: where the user registered.",
)
@_common
def register(
    user: str | None, email: str, first_name: str, last_name: str, source: str, **common: Any
) -> None:
    """Register a user."""
    _send(
        RegisterUser,
        common,
        # A repeat is found among the commands of its user, so it has to be of the same one.
        aggregate_id=str(common["command_id"]) if user is None else user,
        email=email,
        first_name=first_name,
        last_name=last_name,
        registration_source=source,
    )


@send.command(epilog=examples("cqrs send update --id anna --email anna.mueller@example.org"))
@click.option("--id", "user", required=True, help="Id of the user.")
@click.option("--email", help="New email address.")
@click.option("--first-name", help="New first name.")
@click.option("--last-name", help="New last name.")
@_common
def update(
    user: str, email: str | None, first_name: str | None, last_name: str | None, **common: Any
) -> None:
    """Change the profile of a user; fields that are not given stay."""
    changes = {"email": email, "first_name": first_name, "last_name": last_name}
    _send(UpdateUserProfile, common, aggregate_id=user, **changes)


@send.command(epilog=examples("cqrs send deactivate --id anna --expected-version 2"))
@click.option("--id", "user", required=True, help="Id of the user.")
@_common
def deactivate(user: str, **common: Any) -> None:
    """Make a user inactive."""
    _send(DeactivateUser, common, aggregate_id=user)


@send.command(epilog=examples("cqrs send reactivate --id anna --wait"))
@click.option("--id", "user", required=True, help="Id of the user.")
@_common
def reactivate(user: str, **common: Any) -> None:
    """Make an inactive user active again."""
    _send(ReactivateUser, common, aggregate_id=user)


def _send(command_type: type[Command], common: dict[str, Any], **fields: Any) -> None:
    given = {
        "id": common["command_id"],
        "expected_version": common["expected_version"],
        **fields,
    }
    try:
        command = command_type(**given)
    except ValidationError as error:
        _, problems = explain(error, command_type)
        raise _as_typed(problems) from None
    try:
        with waiting("Waiting for the outcome"):
            outcome = asyncio.run(_dispatch(command, common["timeout"]))
    except InvalidCommand as error:  # the client checks more
        raise _as_typed(error.problems) from None
    token = outcome.token
    form: Form = common["form"]
    row = [({**plain(outcome), "token": token}).get(one) for one in _OUTCOME.columns]
    is_error = token is None
    told = marked(_describe(outcome), OF_OUTCOMES[outcome.status], err=is_error)
    line = f"cqrs: {told}" if is_error else told

    def table() -> None:
        click.echo(line, err=is_error)
        if common["wait"] and token is not None:
            click.echo(token)  # before the wait: it is needed most if that fails

    _OUTCOME.write(form, outcome, table, rows=[row])
    if token is None:
        waits = isinstance(outcome, Parked)
        raise click.exceptions.Exit(ExitCode.UNKNOWN if waits else ExitCode.NO)
    if common["wait"]:
        with waiting("Waiting until searches see it"):
            asyncio.run(_wait(token, common["timeout"] or DEFAULT_WAIT_S))


def _as_typed(problems: Sequence[str]) -> InvalidCommand:
    return InvalidCommand([as_typed(line, _OPTIONS) for line in problems])


async def _dispatch(command: Command, timeout: float | None) -> Outcome:
    from agents.client import open_commands

    settings = load_settings()
    if timeout is not None:
        settings = settings.model_copy(update={"outcome_timeout": timeout})
    async with open_commands(settings) as commands:
        return await commands.dispatch(command)


async def _wait(token: str, timeout: float) -> None:
    """Wait until searches see the write: run one that has to include it."""
    from agents.client import open_queries

    async with open_queries(load_settings()) as queries:
        await queries.execute(GetActiveUsers(limit=1), at_least=token, timeout=timeout)


def _describe(outcome: Outcome) -> str:
    if isinstance(outcome, Accepted):
        return f"accepted: user {outcome.aggregate_id} is at version {outcome.sequence}"
    if isinstance(outcome, Duplicate):
        if isinstance(outcome.of, FirstAcceptance):
            return (
                f"duplicate: was accepted before, with version {outcome.of.sequence} of user "
                f"{outcome.aggregate_id}"
            )
        if isinstance(outcome.of, FirstParked):
            return "duplicate: it was sent before and is parked; its outcome comes later"
        return f"duplicate: was rejected before: {outcome.of.reason}"
    if isinstance(outcome, Parked):
        return (
            f"parked, with {outcome.behind} commands of this user before it: its outcome comes "
            f"later ({outcome.reason})"
        )
    return f"{outcome.status}: {outcome.reason}"
