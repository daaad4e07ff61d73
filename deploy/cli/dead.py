"""`cqrs dead`: show, replay, drop and export what could not be decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import click

from agents.users import COMMAND_WORKER, USERS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.failed_commands import (
    FailedContents,
    FailedRecord,
    Filter,
    failed_contents,
    failed_records,
    text,
    time_of,
)
from deploy.cli.output import Form, Output, print_table, printable
from deploy.cli.terminal import NumberRange, confirm, examples, progress_bar, read_time
from deploy.environment import load_settings
from models.outcomes import Outcome, Unparked
from streams.aggregate import TopicNames
from streams.commands.client import KafkaCommandBus
from streams.commands.control import Control, DropParked, ReplayParked, required_control_key
from streams.commands.failed import FailedCommands, ParkedAggregate, read_failed
from streams.commands.send_again import can_be_sent, send_again
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, topic_specs
from streams.settings import Settings

# Control records whose outcomes are awaited at the same time.
_AT_A_TIME = 32


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which ones are meant."""
    for option in (
        click.option(
            "--since",
            metavar="TIME",
            callback=read_time,
            help="Only what was sent since then, such as 2026-11-29T12:00:00Z.",
        ),
        click.option(
            "--code",
            "codes",
            multiple=True,
            help="Only what failed with this code, such as decide-failed; may be repeated.",
        ),
        click.argument("users", metavar="[ID]...", nargs=-1),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Replayed:
    """Result of replaying or dropping."""

    users: int
    """Users whose parked commands were replayed or dropped."""
    ended: int
    """Parked commands that have their final outcome now."""
    left: int
    """Parked commands of these users that still wait."""
    sent_again: int
    """Dead letters that were sent again."""


_LISTED = Output(
    list[FailedRecord], columns=("kind", "user", "partition", "code", "since", "reason")
)
_CONTENTS = Output(list[FailedContents], forms=("table", "json", "ndjson"))
_EXPORTED = Output(list[FailedContents], forms=("ndjson", "json"))
_REPLAYED = Output(Replayed, columns=("users", "ended", "left", "sentAgain"))

_RATE = click.option(
    "--rate",
    type=NumberRange(min=0, min_open=True),
    help="At most so many users, and so many dead letters, in a second.",
)
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def dead() -> None:
    """Show, replay or drop what could not be decided.

    With CQRS_DEAD_LETTER_ORDER=aggregate, the commands of a user wait behind one that failed
    (parked). Otherwise it is a dead letter, and the later ones were decided without it.
    """


@dead.command("list", epilog=examples("cqrs dead list", "cqrs dead list --code decide-failed"))
@_filters
@_LISTED.option
def list_(users: tuple[str, ...], codes: tuple[str, ...], since: Any, form: Form) -> None:
    """Show who has parked commands or dead letters, and why.

    The whole changelog is read, a million records in about 2 seconds. Dead letters that were sent
    again are left out.
    """
    found = _find(load_settings(), Filter(users, codes, since))
    _LISTED.write(form, failed_records(found), lambda: _print_list(found))
    waiting = sum(len(one.parked.commands) for one in found.parked)
    click.echo(
        f"{waiting:,} commands of {len(found.parked):,} users are parked, "
        f"{len(found.dead):,} dead letters",
        err=True,
    )


@dead.command(epilog=examples("cqrs dead show anna", "cqrs dead show anna --json"))
@_filters
@_CONTENTS.option
@click.pass_context
def show(
    ctx: click.Context, users: tuple[str, ...], codes: tuple[str, ...], since: Any, form: Form
) -> None:
    """Show parked commands and dead letters of these users, in full.

    Encrypted fields are decrypted if CQRS_MASTER_KEY is set. Exit code 1 if there are none.
    """
    if not users:
        raise click.UsageError("give the ID of a user")
    found = _find(load_settings(), Filter(users, codes, since))
    shown = failed_contents(found)
    _CONTENTS.write(form, shown, lambda: _print_contents(shown))
    if not (found.parked or found.dead):
        click.echo("cqrs: none of these users has a parked command or a dead letter", err=True)
        ctx.exit(ExitCode.NO)


@dead.command(
    epilog=examples(
        "cqrs dead replay anna",
        "cqrs dead replay --all --code decide-failed --rate 50",
        "cqrs dead replay --all --since 2026-11-29T12:00:00Z --yes --json",
    )
)
@_filters
@_REPLAYED.option
@click.option("--all", "all_", is_flag=True, help="Replay everything that the filters take.")
@_RATE
@_YES
@click.pass_context
def replay(
    ctx: click.Context,
    users: tuple[str, ...],
    codes: tuple[str, ...],
    since: Any,
    form: Form,
    all_: bool,
    rate: float | None,
    yes: bool,
) -> None:
    """Decide parked commands in order, or send dead letters again.

    Parked commands of a user are decided until one fails again; that one and those behind it stay.
    Needs CQRS_CONTROL_KEY, as the workers have it.

    A dead letter is sent once, with its id, and not if its command has been answered meanwhile. It
    is decided after what came later: send it with expectedVersion if that matters. Without --code,
    only those are sent that a mended program may decide.

    Exit code 1 if a command failed again.
    """
    _check_which(users, all_)
    settings, filter_ = load_settings(), Filter(users, codes, since)
    found = _find(settings, filter_)
    sendable = [one for one in found.dead if filter_.takes_to_send(one) and can_be_sent(one)]
    waiting = sum(len(one.parked.commands) for one in found.parked)
    question = (
        f"Replay {waiting:,} parked commands of {len(found.parked):,} users, and send "
        f"{len(sendable):,} dead letters again?"
    )
    if (found.parked or sendable) and not yes:
        confirm(question)

    def control(one: ParkedAggregate) -> Control:
        return ReplayParked(
            id=uuid4(), aggregate_id=one.aggregate_id, first=one.parked.first.offset
        )

    outcomes = _send_controls(settings, found.parked, control, rate)
    numbers = sorted({one.partition for one in sendable})
    sent = asyncio.run(_send_again(settings, numbers, filter_, len(sendable), rate))
    _conclude(ctx, outcomes, form, sent=sent)


@dead.command(
    epilog=examples("cqrs dead drop anna --first", "cqrs dead drop --all --code unknown-type --yes")
)
@_filters
@_REPLAYED.option
@click.option("--all", "all_", is_flag=True, help="Drop everything that the filters take.")
@click.option("--first", is_flag=True, help="Drop only the command of each user that failed.")
@_RATE
@_YES
@click.pass_context
def drop(
    ctx: click.Context,
    users: tuple[str, ...],
    codes: tuple[str, ...],
    since: Any,
    form: Form,
    all_: bool,
    first: bool,
    rate: float | None,
    yes: bool,
) -> None:
    """Make dead letters of parked commands, with the code `dropped`.

    Their outcome is dead-lettered, so they are never decided, unless somebody sends them again
    (`cqrs dead replay --code dropped`). The commands that are left still
    wait: replay them. Needs CQRS_CONTROL_KEY.
    """
    _check_which(users, all_)
    settings = load_settings()
    found = _find(settings, Filter(users, codes, since)).parked
    number = len(found) if first else sum(len(one.parked.commands) for one in found)
    if found and not yes:
        confirm(f"Drop {number:,} commands of {len(found):,} users?")

    def control(one: ParkedAggregate) -> Control:
        last = one.parked.first if first else one.parked.commands[-1]
        return DropParked(
            id=uuid4(),
            aggregate_id=one.aggregate_id,
            first=one.parked.first.offset,
            through=last.offset,
        )

    outcomes = _send_controls(settings, found, control, rate)
    _conclude(ctx, outcomes, form, leaves_some=True)


@dead.command(
    epilog=examples("cqrs dead export > failed.jsonl", "cqrs dead export --code decide-failed")
)
@_filters
@_EXPORTED.option
def export(users: tuple[str, ...], codes: tuple[str, ...], since: Any, form: Form) -> None:
    """Write parked commands and dead letters with their contents.

    It is one JSON object per line; with -o json, or --json, one array.

    Encrypted contents are decrypted if CQRS_MASTER_KEY is set: keep the file as you keep the key.
    """
    found = _find(load_settings(), Filter(users, codes, since))
    _EXPORTED.write(form, failed_contents(found), lambda: None)


def _check_which(users: tuple[str, ...], all_: bool) -> None:
    if bool(users) == all_:
        raise click.UsageError("give either the IDs of users, or --all")


def _find(settings: Settings, filter_: Filter) -> FailedCommands:
    names = TopicNames.of(settings, USERS.name)
    with progress_bar() as progress:
        asyncio.run(check_topics(settings, topic_specs(settings, names), reader(names)))
        return filter_.of(asyncio.run(read_failed(settings, names, progress)))


def _send_controls(
    settings: Settings,
    parked: Sequence[ParkedAggregate],
    control: Callable[[ParkedAggregate], Control],
    rate: float | None,
) -> dict[str, Outcome]:
    """Send a control record for each of these users, and return the outcomes."""
    if not parked:
        return {}
    key = required_control_key(settings)
    outcomes: dict[str, Outcome] = {}

    async def send_all() -> None:
        slots = asyncio.Semaphore(_AT_A_TIME)
        async with KafkaCommandBus(settings, USERS) as bus:

            async def send(one: ParkedAggregate) -> None:
                async with slots:
                    outcome = await bus.dispatch_control(control(one), key)
                    outcomes[one.aggregate_id] = outcome
                    progress("Waiting for outcomes", len(outcomes), len(parked))

            sending = []
            for one in parked:
                sending.append(asyncio.create_task(send(one)))
                if rate is not None:
                    await asyncio.sleep(1 / rate)
            await asyncio.gather(*sending)

    with progress_bar() as progress:
        asyncio.run(send_all())
    return outcomes


async def _send_again(
    settings: Settings, partitions: Sequence[int], filter_: Filter, total: int, rate: float | None
) -> int:
    names, sent = TopicNames.of(settings, USERS.name), 0
    with progress_bar() as progress:
        for number in partitions:
            sending = send_again(
                settings, names, COMMAND_WORKER, number, filter_.takes_to_send, rate
            )
            async with aclosing(sending):
                async for batch in sending:
                    sent += len(batch)
                    progress("Sending dead letters", sent, total)
    return sent


def _conclude(
    ctx: click.Context,
    outcomes: dict[str, Outcome],
    form: Form,
    *,
    sent: int = 0,
    leaves_some: bool = False,
) -> None:
    """Print what became of it; exit code 1 if something was left or not obeyed."""
    obeyed = {user: one for user, one in outcomes.items() if isinstance(one, Unparked)}
    ended = sum(one.ended for one in obeyed.values())
    left = sum(one.left for one in obeyed.values())
    said = Replayed(len(outcomes), ended, left, sent)
    line = (
        f"{ended:,} parked commands of {len(outcomes):,} users ended, {left:,} are left; "
        f"{sent:,} dead letters were sent again"
    )
    _REPLAYED.write(form, said, lambda: click.echo(line))
    for user, one in outcomes.items():
        if not isinstance(one, Unparked):
            reason = getattr(one, "reason", one.status)
            click.echo(f"cqrs: {user}: not obeyed: {reason}", err=True)
        elif one.left and not leaves_some:
            click.echo(f"cqrs: {user}: {one.left} still wait, {one.code}: {one.reason}", err=True)
    if left and leaves_some and form == "table":
        click.echo("the others still wait: see `cqrs dead list`, then `cqrs dead replay`", err=True)
    refused = any(one.code == "parked-changed" for one in obeyed.values())
    if len(obeyed) < len(outcomes) or (left and not leaves_some) or refused:
        ctx.exit(ExitCode.NO)


def _print_list(found: FailedCommands) -> None:
    rows: list[tuple[object, ...]] = []
    for one in found.parked:
        failure = one.parked.failure
        rows.append(
            (
                "parked",
                one.aggregate_id,
                len(one.parked.commands),
                time_of(one.parked.first.timestamp),
                failure.code,
                f"{failure.reason} (tried {failure.attempts} times)",
            )
        )
    for letter in found.dead:
        reason = letter.reason + ("" if can_be_sent(letter) else " (cannot be sent again)")
        since = time_of(letter.timestamp)
        rows.append(("dead", str(text(letter.key)), 1, since, letter.code, reason))
    if rows:
        print_table(
            ("kind", "user", "commands", "since", "code", "reason"),
            rows,
            right=("commands",),
            prose=("reason",),
            droppable=("since", "commands"),
        )


def _print_contents(shown: Sequence[FailedContents]) -> None:
    for one in shown:
        click.echo(printable(f"{one.kind}  {one.user}  {one.code}: {one.reason}"))
        for command in one.commands:
            value = "(encrypted)" if command.value is None else command.value
            click.echo(printable(f"    {command.time}  offset {command.offset}  {value}"))
