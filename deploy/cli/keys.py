"""`cqrs keys`: the master key, which encrypts (wraps) the keys of users."""

from __future__ import annotations

import click

from deploy.cli.terminal import examples


@click.group()
def keys() -> None:
    """Create a master key for personal data, or a control key."""


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
    personal data again. A deployment keeps one master key for its whole life.
    """
    from streams.encryption.keys import new_master_key

    name = "CQRS_CONTROL_KEY" if control else "CQRS_MASTER_KEY"
    click.echo(f"export {name}={new_master_key()}")
