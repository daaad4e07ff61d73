"""`cqrs follow`: the way of one command, while it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import async_timeout
import click

from agents.users import USERS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.outcomes import outcome_line
from deploy.cli.output import Form, output_option, tsv
from deploy.cli.terminal import examples
from deploy.colour import OF_OUTCOMES, marked
from deploy.environment import load_settings
from models.errors import Transient
from models.outcomes import Outcome
from models.queries import GetActiveUsers, GetUserById
from models.wire import encode
from streams.audit.following import follow_command
from streams.audit.trail import Hop
from streams.settings import Settings

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


_COLUMNS = ("hop", "seconds", "topic", "partition", "offset", "type", "sequence")


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
    type=click.FloatRange(min=0),
    help="Minutes to look back.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait in all. [default: until Ctrl-C]",
)
@output_option()
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
        raise Transient(f"after {timeout:g} s: {_NEXT[following.last]}") from None


class _Following:
    """Prints each hop when it is known."""

    def __init__(self, settings: Settings, form: Form) -> None:
        self._settings = settings
        self._form = form
        self._began: datetime | None = None
        self.last = ""
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
                self._print_hop(hop)
            printed = len(trail.hops)
        assert outcome is not None
        self.token = outcome.token
        if outcome.token is not None:
            await self._watch_view(str(outcome.aggregate_id), outcome.token)

    async def _watch_view(self, aggregate_id: str, token: str) -> None:
        from agents.client import open_queries

        self.last = "event"
        async with open_queries(self._settings) as queries:
            for name, query in (
                ("projected", GetUserById(aggregate_id)),
                ("searchable", GetActiveUsers(limit=1)),
            ):
                await queries.execute(query, at_least=token, timeout=_VIEW_TIMEOUT_S)
                self._print(name, datetime.now(timezone.utc), "", {"clock": "of this program"})
                self.last = name

    def _print_hop(self, hop: Hop) -> None:
        source = hop.source
        details: dict[str, Any] = {
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
            "clock": "of the broker",
            "aggregateId": hop.aggregate_id,
            "type": hop.type,
            "sequence": hop.sequence,
            "outcome": hop.outcome,
        }
        self.last = hop.name
        place = f"{source.topic}[{source.partition}] offset {source.offset}"
        self._print(hop.name, hop.at, f"{_described(hop)}  {place}", details)

    def _print(self, name: str, at: datetime, text: str, details: dict[str, Any]) -> None:
        self._began = self._began or at
        seconds = (at - self._began).total_seconds()
        hop = {"hop": name, "at": at, "seconds": round(seconds, 3), **details}
        if self._form == "tsv":
            click.echo(tsv([hop.get(column) for column in _COLUMNS]))
            return
        if self._form != "table":
            click.echo(encode({key: value for key, value in hop.items() if value is not None}))
            return
        clock = at.strftime("%H:%M:%S.%f")[:-3] + "Z"
        click.echo(f"{clock}  {seconds:+10.3f} s  {name:<10}  {text}".rstrip())


def _described(hop: Hop) -> str:
    if hop.outcome is not None:
        return marked(outcome_line(hop.outcome), OF_OUTCOMES[hop.outcome.status])
    what: Sequence[str] = (
        [f"#{hop.sequence}", str(hop.type)]
        if hop.name == "event"
        else [hop.type or "a command", "for", hop.aggregate_id or "-"]
    )
    return " ".join(what)
