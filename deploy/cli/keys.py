"""`cqrs keys`: the master key, which encrypts (wraps) the keys of users."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import click

from agents.users import COMMAND_WORKER, USERS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import examples, progress_bar
from deploy.environment import load_settings
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.commands.rotate_keys import Rotated, WrappedKeys, read_wrapped_keys, rotate_keys
from streams.encryption.keys import new_master_key
from streams.kafka.rights import command_worker, reader
from streams.kafka.topics import check_topics, topic_specs
from streams.worker.process import tune_gc

_COLUMNS = ("CQRS_MASTER_KEY", "second one", "neither", "damaged", "replaced, until compaction")
_SHOWN_IDS = 10  # of users, in a line


@dataclass(frozen=True)
class KeysStatus:
    """With which master key the keys of users are wrapped."""

    ok: bool
    """Whether all are wrapped with CQRS_MASTER_KEY: no other one is needed."""
    partitions: list[WrappedKeys]


@dataclass(frozen=True)
class KeysRotated:
    """Which keys of users were wrapped with the new master key."""

    wrapped: list[int]
    """How many, by partition."""
    partitions: list[Rotated]


_STATUS = Output(
    KeysStatus,
    line=WrappedKeys,
    columns=("partition", "current", "second", "unknown", "damaged", "replaced"),
)
_ROTATED = Output(KeysRotated, line=Rotated, columns=("partition", "wrapped"))


@click.group()
def keys() -> None:
    """Create a master key for personal data; replace it by another one while workers run.

    CQRS_MASTER_KEY wraps the keys of users. To replace it, see docs/security.md: every process
    first gets the new one as CQRS_SECOND_MASTER_KEY, then as CQRS_MASTER_KEY with the old one as
    CQRS_SECOND_MASTER_KEY; then `rotate`.
    """


@keys.command(
    epilog=examples(
        'eval "$(cqrs keys new)"; export CQRS_ENCRYPT_PERSONAL_DATA=1', "cqrs keys new --control"
    )
)
@click.option(
    "--control",
    is_flag=True,
    help="Print a control key instead: it signs replays and drops of parked commands.",
)
def new(control: bool) -> None:
    """Print a new master key: one line to paste into a shell.

    Store it apart from Kafka's data and its backups, and do not lose it: without it nobody can read
    personal data again.
    """
    name = "CQRS_CONTROL_KEY" if control else "CQRS_MASTER_KEY"
    click.echo(f"export {name}={new_master_key()}")


@keys.command(epilog=examples("cqrs keys status", "cqrs keys status --json"))
@_STATUS.option
@click.pass_context
def status(ctx: click.Context, form: Form) -> None:
    """Show how many keys of users are wrapped with which master key.

    Exit code 1 if any is not wrapped with CQRS_MASTER_KEY: the other master key is still needed.
    Nothing is written.
    """
    settings = load_settings()
    names = TopicNames.of(settings, USERS.name)

    async def read() -> list[WrappedKeys]:
        await check_topics(settings, topic_specs(settings, names), reader(names))
        return [
            await read_wrapped_keys(settings, names, number, progress)
            for number in range(settings.partitions)
        ]

    with progress_bar() as progress:
        found = asyncio.run(read())
    left = sum(one.second + one.unknown + one.damaged for one in found)
    document = KeysStatus(not left, found)
    _STATUS.write(form, document, lambda: _print(names.keys, found), lines=found)
    ctx.exit(ExitCode.NO if left else ExitCode.OK)


@keys.command(epilog=examples("cqrs keys rotate", "cqrs keys rotate --json"))
@_ROTATED.option
def rotate(form: Form) -> None:
    """Wrap the keys of users with the new master key.

    These are the ones that CQRS_SECOND_MASTER_KEY wrapped; CQRS_MASTER_KEY wraps them now.
    Workers may run. One that owns a partition with such keys loses it for a moment, and takes it
    over again. If this is interrupted, run it again: it continues with what is left. Events and
    states stay as they are, for the keys of users do not change.

    A key that is damaged, or of another master key, stays as it is and holds up no other one. Exit
    code 75 with the ids of these users: the former master key is still needed.
    """
    settings = load_settings()
    names = TopicNames.of(settings, USERS.name)
    tune_gc()

    rights = command_worker(names, settings.namespace + COMMAND_WORKER)

    async def wrap() -> list[Rotated]:
        await check_topics(settings, topic_specs(settings, names), rights)
        return [
            await rotate_keys(settings, names, number, COMMAND_WORKER, progress)
            for number in range(settings.partitions)
        ]

    with progress_bar() as progress:
        found = asyncio.run(wrap())
    document = KeysRotated([one.wrapped for one in found], found)
    line = f"{sum(one.wrapped for one in found):,} keys of users were wrapped again"
    _ROTATED.write(form, document, lambda: click.echo(line), lines=found)
    left = _left(names.keys, found)
    if left:
        raise Fatal(f"{'; '.join(left)}; the former master key is still needed")


def _left(topic: str, found: Sequence[Rotated]) -> list[str]:
    """Return what has to be done about the keys that could not be wrapped again."""
    unknown = [user for one in found for user in one.unknown]
    damaged = [user for one in found for user in one.damaged]
    lines = []
    if unknown:
        lines.append(
            "keys of users that neither CQRS_MASTER_KEY nor CQRS_SECOND_MASTER_KEY opens "
            f"({_shown(unknown)}): set the one that they were wrapped with"
        )
    if damaged:
        lines.append(
            f"damaged keys of users ({_shown(damaged)}): restore their records on {topic} from a "
            "backup"
        )
    return lines


def _shown(users: Sequence[str]) -> str:
    more = len(users) - _SHOWN_IDS
    return ", ".join(users[:_SHOWN_IDS]) + (f" and {more:,} more" if more > 0 else "")


def _print(topic: str, found: Sequence[WrappedKeys]) -> None:
    print_table(
        (topic, *_COLUMNS),
        [
            (
                one.partition,
                *(
                    f"{n:,}"
                    for n in (one.current, one.second, one.unknown, one.damaged, one.replaced)
                ),
            )
            for one in found
        ],
        right=_COLUMNS,
        prose=_COLUMNS,
    )
