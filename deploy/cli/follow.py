"""`cqrs follow`: the way of one command, while it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal
from uuid import UUID

import async_timeout
import click

from agents.users import USERS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.outcomes import outcome_line
from deploy.cli.output import Form, Output, printable
from deploy.cli.terminal import NumberRange, examples
from deploy.colour import OF_OUTCOMES, marked
from deploy.environment import load_settings
from models.errors import Transient
from models.outcomes import Outcome
from models.queries import GetActiveUsers, GetUserById
from streams.audit.following import follow_command
from streams.audit.trail import Hop
from streams.logs import name_of
from streams.settings import Settings

_MAX_MINUTES = 10 * 366 * 24 * 60  # more than topics keep; `datetime` has a first year
_VIEW_TIMEOUT_S = 3600.0  # the longest that a query waits; --timeout ends it sooner

# What is waited for after each hop, and what has to run for it.
_NEXT = {
    "": "no such command has come: is its id right, and --since early enough?",
    "produced": "it is not decided: does a command worker run?",
    "parked": "it waits behind a command of this user that failed: see `cqrs dead list`",
    "decided": "its events cannot be read: is a transaction open?",
    "event": "the view does not have it: does a view worker run?",
    "projected": "searches do not see it",
}


@dataclass(frozen=True)
class FollowedHop:
    """A place that the command has come to; fields that do not apply are null."""

    hop: Literal["produced", "parked", "decided", "event", "projected", "searchable"]
    at: datetime
    seconds: float
    """Since the first one."""
    clock: Literal["of the broker", "of this program"]
    """Whose time `at` is; that of this program is when it saw it."""
    topic: str | None = None
    """With the next two: the place of the record."""
    partition: int | None = None
    offset: int | None = None
    aggregate_id: str | None = None
    type: str | None = None
    """Of the command, or of the event."""
    sequence: int | None = None
    """Of the event."""
    outcome: Outcome | None = None


_OUTPUT = Output(
    FollowedHop,
    columns=("hop", "seconds", "topic", "partition", "offset", "type", "sequence"),
)

# The query that waits for each of these; None: the user by id.
_OF_VIEW: tuple[tuple[Literal["projected", "searchable"], GetActiveUsers | None], ...] = (
    ("projected", None),
    ("searchable", GetActiveUsers(limit=1)),
)


@click.command(
    epilog=examples(
        "cqrs follow 2f1c7f0e-6a60-4a55-9f0e-0f6a1d2f3b4c",
        "cqrs follow 2f1c7f0e-6a60-4a55-9f0e-0f6a1d2f3b4c --aggregate anna --since 1440",
        "cqrs follow 2f1c7f0e-6a60-4a55-9f0e-0f6a1d2f3b4c --timeout 10 --json",
    )
)
@click.argument("command_id", type=click.UUID, metavar="COMMAND_ID")
@click.option(
    "--aggregate", metavar="ID", help="The user that it is for: one partition is read, not all."
)
@click.option(
    "--since",
    default=5.0,
    show_default=True,
    type=NumberRange(min=0, max=_MAX_MINUTES),
    help="Minutes to look back.",
)
@click.option(
    "--timeout",
    type=NumberRange(min=0, min_open=True),
    help="Seconds to wait in all. [default: until Ctrl-C]",
)
@_OUTPUT.option
@click.pass_context
def follow(
    ctx: click.Context,
    command_id: UUID,
    aggregate: str | None,
    since: float,
    timeout: float | None,
    form: Form,
) -> None:
    """Show the way of one command: produced, decided, its events, in the view, searchable.

    Waits for what is not there yet, also for the command itself. Times are those at which the
    brokers got the records; that of the view is when this program saw it there, so it says little
    about a command of the past. JSON is one object per hop. Exit code 1 if the command was not
    accepted.
    """
    following = _Following(load_settings(), form)
    asyncio.run(_in_time(following, command_id, aggregate, since, timeout))
    ctx.exit(ExitCode.OK if following.token else ExitCode.NO)


async def _in_time(
    following: _Following,
    command_id: UUID,
    aggregate: str | None,
    minutes: float,
    timeout: float | None,
) -> None:
    since = datetime.now(timezone.utc) - timedelta(minutes=minutes)
    try:
        async with async_timeout.timeout(timeout):
            await following.run(command_id, aggregate, since)
    except asyncio.TimeoutError:
        if not following.is_over:
            raise Transient(f"after {timeout:g} s: {_NEXT[following.last]}") from None


class _Following:
    """Prints each hop when it is known."""

    def __init__(self, settings: Settings, form: Form) -> None:
        self._settings = settings
        self._form = form
        self._began: datetime | None = None
        self.last = ""
        self.is_over = False
        """Whether nothing follows any more: connections may still have to be closed."""
        self.token: str | None = None

    async def run(self, command_id: UUID, aggregate_id: str | None, since: datetime) -> None:
        """Follow the command until searches see it, or it turns out that they never will."""
        printed = 0
        trails = follow_command(
            self._settings,
            USERS,
            command_id,
            aggregate_id=aggregate_id,
            since=since,
            on_start=lambda what: click.echo(f"cqrs: reading {what}", err=True),
        )
        outcome: Outcome | None = None
        async for trail in trails:
            outcome = trail.outcome
            for hop in trail.hops[printed:]:
                self._print_record(hop)
            printed = len(trail.hops)
            self.token = None if outcome is None else outcome.token
            self.is_over = trail.is_complete and self.token is None
        assert outcome is not None
        if outcome.token is not None:
            await self._watch_view(str(outcome.aggregate_id), outcome.token)

    async def _watch_view(self, aggregate_id: str, token: str) -> None:
        from agents.client import open_queries

        self.last = "event"
        async with open_queries(self._settings) as queries:
            for name, query in _OF_VIEW:
                await queries.execute(
                    query or GetUserById(aggregate_id), at_least=token, timeout=_VIEW_TIMEOUT_S
                )
                at = datetime.now(timezone.utc)
                self.print_hop(FollowedHop(name, at, self._since_first(at), "of this program"))
                self.is_over = name == "searchable"

    def _print_record(self, hop: Hop) -> None:
        source = hop.source
        found = FollowedHop(
            hop.name,
            hop.at,
            self._since_first(hop.at),
            "of the broker",
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
            aggregate_id=hop.aggregate_id,
            type=hop.type,
            sequence=hop.sequence,
            outcome=hop.outcome,
        )
        place = f"{name_of(source)} offset {source.offset}"
        self.print_hop(found, f"{_described(hop)}  {place}")

    def _since_first(self, at: datetime) -> float:
        self._began = self._began or at
        return round((at - self._began).total_seconds(), 3)

    def print_hop(self, hop: FollowedHop, text: str = "") -> None:
        """Print a hop, with what is known of it for people."""
        self.last = hop.hop
        clock = hop.at.strftime("%H:%M:%S.%f")[:-3] + "Z"
        line = f"{clock}  {hop.seconds:+10.3f} s  {hop.hop:<10}  {text}".rstrip()
        _OUTPUT.write(self._form, hop, lambda: click.echo(line), is_part=True)


def _described(hop: Hop) -> str:
    if hop.outcome is not None:
        return marked(outcome_line(hop.outcome), OF_OUTCOMES[hop.outcome.status])
    what: Sequence[str] = (
        [f"#{hop.sequence}", str(hop.type)]
        if hop.name == "event"
        else [hop.type or "a command", "for", hop.aggregate_id or "-"]
    )
    return printable(" ".join(what))
