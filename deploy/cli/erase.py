"""`cqrs erase`: the end of a user, and what is left of the personal data where."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
from pydantic import ValidationError

from deploy.cli.terminal import examples
from deploy.environment import load_settings
from models.commands import EraseUser
from models.errors import Fatal, InvalidCommand
from models.outcomes import Accepted, Outcome
from models.validation import explain
from streams.audit.erasure_report import ErasureReport
from streams.settings import Settings


@click.command(epilog=examples("cqrs erase anna --prove", "cqrs erase anna --yes --json"))
@click.argument("user", metavar="ID")
@click.option("--prove", is_flag=True, help="Look for what is left in every topic and the index.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What came of it, for programs.")
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that the view worker gets.",
)
@click.pass_context
def erase(
    ctx: click.Context, user: str, prove: bool, yes: bool, as_json: bool, timeout: float
) -> None:
    """Erase a user for good, and wait until the view has forgotten.

    No command for this id is accepted any more. With CQRS_ENCRYPT_PERSONAL_DATA the user's key is
    destroyed, and with it personal data in events, states and dead letters.

    With --prove, also for a user who was erased before: reads every place from its first offset to
    its end, tries to decrypt, and says for each: gone, or gone by when. Exit code 1 if something is
    neither. What no server shows is not looked at: backups, and disks.
    """
    try:
        command = EraseUser(aggregate_id=user)
    except ValidationError as error:
        raise InvalidCommand(explain(error, EraseUser)[1]) from None
    if not yes:
        click.confirm(f"Erase user {user} for good?", abort=True)
    settings = load_settings()
    version, proof = asyncio.run(_erase(settings, command, prove, timeout))
    if as_json:
        click.echo(json.dumps({"id": user, "version": version, **_as_wire(proof)}))
    else:
        click.echo(f"user {user} is erased, at version {version}")
        if proof is not None:
            _print(proof)
            if not settings.encrypt_personal_data:
                click.echo(
                    "CQRS_ENCRYPT_PERSONAL_DATA is off: events and states hold what they were "
                    "written with, in plain text"
                )
    if proof is not None and not proof.ok:
        left = ", ".join(place.name for place in proof.findings if not place.ok)
        click.echo(f"cqrs: personal data of {user} is NOT gone from {left}", err=True)
        ctx.exit(1)


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
    """Raises Fatal unless the user is erased now, or was before."""
    if isinstance(outcome, Accepted) or getattr(outcome, "code", "") == "user-erased":
        return
    raise Fatal(f"{outcome.status}: {getattr(outcome, 'reason', 'the id of the command is taken')}")


def _as_wire(proof: ErasureReport | None) -> dict[str, Any]:
    if proof is None:
        return {}
    places = [
        {
            "place": place.name,
            "records": place.records,
            "readable": place.readable,
            "gone": not place.readable,
            "goneBy": place.expires_at.isoformat(),
            "note": place.note,
        }
        for place in proof.findings
    ]
    return {"ok": proof.ok, "places": places}


def _print(proof: ErasureReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("place", "records", "readable", "personal data is", "")
    table.columns[0].overflow = "fold"  # the whole name
    for column in table.columns[1:3]:
        column.justify = "right"
    for place in proof.findings:
        counts = (f"{place.records:,}", f"{place.readable:,}")
        table.add_row(place.name, *counts, place.verdict, place.note)
    Console(highlight=False).print(table)
