"""`cqrs erase`: erase a user for good, and check where personal data is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

import click
from pydantic import ValidationError

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import NumberRange, as_typed, confirm, examples, waiting
from deploy.colour import Meaning, Verdict
from deploy.environment import load_settings
from models.commands import EraseUser
from models.errors import InvalidCommand, Rejected
from models.outcomes import Accepted, Outcome
from models.validation import explain
from streams.audit.erasure_report import NEVER, ErasureFinding, ErasureReport
from streams.settings import Settings


@dataclass(frozen=True)
class ErasedPlace:
    """A topic or index, and the user's data there."""

    place: str
    """Name of the topic, index or other place."""
    records: int
    """Number of the user's records or documents there."""
    readable: int
    """Number of those with personal data that can still be read."""
    unseen: int
    """Number of records and indices there that could not be looked at."""
    gone: bool
    """Whether everything was looked at, and nothing can be read."""
    gone_by: datetime | None
    """When the rest will be gone; None if nothing removes it. Without meaning if all is gone."""
    note: str
    """What else matters there, for people."""


@dataclass(frozen=True)
class Erased:
    """A user who is erased; the last two are null without `--prove`."""

    id: str
    version: int
    """Of the tombstone in the view."""
    ok: bool | None
    """Whether personal data is gone from every place, or will be by a known date."""
    places: list[ErasedPlace] | None


_OUTPUT = Output(
    Erased,
    line=ErasedPlace | Erased,
    columns=("place", "records", "readable", "gone", "goneBy", "note"),
)


@click.command(epilog=examples("cqrs erase anna --prove", "cqrs erase anna --yes --json"))
@click.argument("user", metavar="ID")
@click.option(
    "--prove", is_flag=True, help="Also check every topic and the index for what is left."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_OUTPUT.option
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=NumberRange(min=0),
    help="Seconds to wait for the view worker.",
)
@click.pass_context
def erase(
    ctx: click.Context, user: str, prove: bool, yes: bool, form: Form, timeout: float
) -> None:
    """Erase a user for good, and wait until the view contains only a tombstone.

    No command for this id is accepted afterwards. With CQRS_ENCRYPT_PERSONAL_DATA the user's key is
    destroyed: personal data in events, states and dead letters can no longer be read.

    With --prove, every topic is read from its first to its last offset, and every index of the view
    is asked for the user. For each it shows whether personal data is gone, or by when it will be.
    Exit code 1 if some of it stays without such a date, and 75 if something could not be looked at,
    as an index that is closed. This also works for a user who was erased before. It changes
    nothing.
    It checks only what the servers show: no backups, no disks, and not the files of an index, which
    keep replaced documents until they are merged.
    """
    try:
        command = EraseUser(aggregate_id=user)
    except ValidationError as error:
        _, problems = explain(error, EraseUser)
        raise InvalidCommand(
            [as_typed(line, {"aggregate_id": "ID"}) for line in problems]
        ) from None
    if not yes:
        confirm(f"Erase user {user} for good?")
    settings = load_settings()
    with waiting("Erasing, and looking at what is left" if prove else "Erasing"):
        version, report = asyncio.run(_erase(settings, command, prove, timeout))
    places = None if report is None else [_place(one) for one in report.findings]
    document = Erased(user, version, None if report is None else report.ok, places)

    def table() -> None:
        click.echo(f"user {user} is erased, at version {version}")
        if report is not None:
            _print(report)
            if not settings.encrypt_personal_data:
                click.echo(
                    "CQRS_ENCRYPT_PERSONAL_DATA is off: events and states keep personal data in "
                    "plain text"
                )

    _OUTPUT.write(
        form,
        document,
        table,
        lines=[document] if places is None else places,
        rows=[(user, version)] if places is None else None,
    )
    if report is not None and not report.ok:
        left = [place.name for place in report.findings if not place.ok and place.readable]
        unseen = [place.name for place in report.findings if not place.ok and not place.readable]
        said = [
            *(() if report.erased else ("was not erased by any event",)),
            *([f"is NOT gone from {', '.join(left)}"] if left else ()),
            *([f"may be in {', '.join(unseen)}, NOT looked at"] if unseen else ()),
        ]
        click.echo(f"cqrs: personal data of {user} {'; it '.join(said)}", err=True)
        ctx.exit(ExitCode.NO if left or not report.erased else ExitCode.UNKNOWN)


async def _erase(
    settings: Settings, command: EraseUser, prove: bool, timeout: float
) -> tuple[int, ErasureReport | None]:
    from agents.client import open_commands
    from agents.user_audit import check_user_erasure, wait_for_tombstone

    user = command.aggregate_id
    async with open_commands(settings) as commands:
        _check(await commands.dispatch(command))
    version = await wait_for_tombstone(settings, user, timeout=timeout)
    return version, await check_user_erasure(settings, user) if prove else None


def _check(outcome: Outcome) -> None:
    """Check that the user is erased now, or was before.

    Raises:
        Rejected: it is neither; the message has the reason.
    """
    if isinstance(outcome, Accepted) or getattr(outcome, "code", "") == "user-erased":
        return
    reason = getattr(outcome, "reason", "the id of the command is taken")
    raise Rejected(getattr(outcome, "code", outcome.status), f"{outcome.status}: {reason}")


def _place(found: ErasureFinding) -> ErasedPlace:
    return ErasedPlace(
        place=found.name,
        records=found.records,
        readable=found.readable,
        unseen=found.unseen,
        gone=found.gone,
        gone_by=None if found.expires_at == NEVER else found.expires_at.date,
        note=found.note,
    )


def _meaning(place: ErasureFinding) -> Meaning:
    if place.gone:
        return "good"
    return "late" if place.ok else "bad"


def _print(report: ErasureReport) -> None:
    print_table(
        ("place", "records", "readable", "personal data is", "note"),
        [
            (
                place.name,
                f"{place.records:,}",
                f"{place.readable:,}",
                Verdict(place.verdict, _meaning(place)),
                place.note,
            )
            for place in report.findings
        ],
        right=("records", "readable"),
        prose=("note", "personal data is"),
        droppable=("note",),
    )
