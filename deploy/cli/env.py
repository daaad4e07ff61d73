"""`cqrs env`: where the running stack is, for other programs."""

from __future__ import annotations

import shlex

import click

from deploy.cli.terminal import examples
from deploy.embedded.stack import EmbeddedStack
from deploy.roles import ROLES, SecuredRole
from models.errors import Fatal


@click.command(epilog=examples('eval "$(cqrs env)"', 'eval "$(cqrs env --role client)"'))
@click.option("--role", type=click.Choice(ROLES), help="Of a secured stack: who connects.")
def env(role: SecuredRole | None) -> None:
    """Print the variables of the running stack: lines for a shell.

    They are what every program of this project reads: addresses, and for a secured stack the
    credentials of a role. If personal data is encrypted there (`cqrs dev`), the master key's file
    is one of them.
    """
    stack = EmbeddedStack()
    if not stack.is_running:
        raise Fatal(f"no stack runs in {stack.home}: start one with `cqrs dev` or `cqrs up`")
    if stack.address.is_secure and role is None:
        raise click.UsageError(
            f"the running stack is secured: say who connects: --role {'|'.join(ROLES)}"
        )
    click.echo(f"export CQRS_STACK_HOME={shlex.quote(str(stack.home))}")
    for name, value in stack.settings(role or "").items():
        text = "1" if value is True else str(value)
        click.echo(f"export CQRS_{name.upper()}={shlex.quote(text)}")
