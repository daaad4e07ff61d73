"""`cqrs keys`: the master key, which wraps the keys of users."""

from __future__ import annotations

import click

from deploy.cli.terminal import examples


@click.group()
def keys() -> None:
    """Make a master key for personal data."""


@keys.command(epilog=examples('eval "$(cqrs keys new)"; export CQRS_ENCRYPT_PERSONAL_DATA=1'))
def new() -> None:
    """Make a new master key: one line to paste into a shell.

    Keep it apart from Kafka's data and from its backups, and keep it well: without it nobody reads
    personal data again. It is for the life of a deployment.
    """
    from streams.encryption.keys import new_master_key

    click.echo(f"export CQRS_MASTER_KEY={new_master_key()}")
