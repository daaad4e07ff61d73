"""`cqrs history`: everything that happened to one user, from the topics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import click
import msgspec
from pydantic.alias_generators import to_camel

from agents.users import USERS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.outcomes import outcome_line
from deploy.cli.output import Form, Output, printable
from deploy.cli.terminal import examples, progress_bar, read_time
from deploy.colour import OF_OUTCOMES, marked
from deploy.environment import load_settings
from models.outcomes import Accepted
from models.user import User
from streams.audit.timeline import Entry, read_timeline, state_of
from streams.state.snapshot import Snapshot


@dataclass(frozen=True)
class Read:
    """Records that had to be read for it, and how long that took."""

    records: int
    seconds: float


@dataclass(frozen=True)
class History:
    """Everything that happened to one user."""

    id: str
    partition: int
    """The partition of the user on each topic."""
    entries: Sequence[Entry]
    """In the order in which they were decided."""
    version: int
    """Of the state; 0 if there are no events up to then."""
    state: Mapping[str, Any] | None
    """The fold of the events up to the version or time that was asked for; None without events."""
    unreadable: Sequence[str]
    """Records that cannot be read, with the reason."""
    read: Read


_OUTPUT = Output(History, line=Entry, columns=("offset", "time", "result"))


@click.command(
    epilog=examples(
        "cqrs history anna",
        "cqrs history anna --version 3",
        "cqrs history anna --at 2026-11-29T12:00:00Z --json",
    )
)
@click.argument("user_id", metavar="ID")
@click.option("--version", type=click.IntRange(min=1), help="Show the state at this version.")
@click.option(
    "--at",
    metavar="TIME",
    callback=read_time,
    help="Show the state at this time, such as 2026-11-29T12:00:00Z.",
)
@_OUTPUT.option
@click.pass_context
def history(
    ctx: click.Context, user_id: str, version: int | None, at: datetime | None, form: Form
) -> None:
    """Show a user's commands with their outcomes and events, and the user's state.

    Everything is read from the topics, in the one partition of this user: about two seconds for a
    million records. Commands and outcomes that retention has removed are missing, events are
    never removed. Exit code 1 if there is nothing about this user.
    """
    started = time.monotonic()
    with progress_bar() as progress:
        timeline = asyncio.run(read_timeline(load_settings(), USERS, user_id, progress))
    seconds = time.monotonic() - started
    snapshot = state_of(USERS, timeline, version=version, time=at)
    found = History(
        id=timeline.aggregate_id,
        partition=timeline.partition,
        entries=timeline.entries,
        version=snapshot.version,
        state=None if snapshot.state is None else _fields(snapshot.state),
        unreadable=timeline.unreadable,
        read=Read(timeline.records_read, round(seconds, 3)),
    )

    def table() -> None:
        for entry in timeline.entries:
            _print_entry(entry)
        _print_state(snapshot)
        click.echo(
            f"partition {timeline.partition}: {timeline.records_read:,} records read in "
            f"{seconds:.1f} s",
            err=True,
        )

    rows = [(one.offset, _shown(one.time), _outcome(one)) for one in timeline.entries]
    _OUTPUT.write(form, found, table, lines=found.entries, rows=rows)
    for reason in timeline.unreadable:
        click.echo(f"cqrs: not shown: {reason}", err=True)
    if not timeline.entries:
        click.echo(f"cqrs: there is nothing about a user with the id {user_id}", err=True)
        ctx.exit(ExitCode.NO)


def _print_entry(entry: Entry) -> None:
    command = entry.command
    name = "(no longer on the topic)" if command is None else command.type or "(unreadable)"
    outcome = entry.outcome
    status = "accepted" if entry.events else "parked"  # or it waits, or its outcome has expired
    told = marked(_outcome(entry), OF_OUTCOMES[status if outcome is None else outcome.status])
    click.echo(f"{_shown(entry.time)}  {printable(name)}  {told}")
    correlation = None if outcome is None else outcome.correlation_id
    causation = next((one.causation_id for one in entry.events), None)
    if correlation is not None or causation is not None:
        click.echo(f"    because of {causation or '-'}, in {correlation or '-'}")
    for event in entry.events:
        fields = " ".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}"
            for name, value in msgspec.to_builtins(event.event).items()
        )
        click.echo(f"    #{event.sequence} {type(event.event).__name__}  {fields}".rstrip())


def _outcome(entry: Entry) -> str:
    outcome = entry.outcome
    if outcome is None:
        return "accepted" if entry.events else "not decided yet, or its outcome has expired"
    return "accepted" if isinstance(outcome, Accepted) else outcome_line(outcome)


def _print_state(snapshot: Snapshot[User]) -> None:
    if snapshot.state is None:
        return
    click.echo(f"The state at version {snapshot.version}:")
    for name, value in msgspec.to_builtins(_fields(snapshot.state)).items():
        click.echo(f"    {name}: {json.dumps(value, ensure_ascii=False)}")


def _shown(time_: datetime) -> str:
    return time_.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _fields(state: User) -> dict[str, Any]:
    return {to_camel(name): value for name, value in msgspec.structs.asdict(state).items()}
