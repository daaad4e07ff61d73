"""`cqrs completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

from typing import Literal, get_args

import click
from click.shell_completion import get_completion_class

from deploy.cli.terminal import examples

Shell = Literal["bash", "zsh", "fish"]


@click.command(
    epilog=examples(
        "cqrs completion bash > ~/.local/share/bash-completion/completions/cqrs",
        'cqrs completion zsh > "${fpath[1]}/_cqrs"',
        "cqrs completion fish > ~/.config/fish/completions/cqrs.fish",
    )
)
@click.argument("shell", type=click.Choice(get_args(Shell)))
@click.pass_context
def completion(ctx: click.Context, shell: Shell) -> None:
    """Print a script that makes SHELL complete commands and options."""
    written_for = get_completion_class(shell)
    assert written_for is not None  # click has all three
    click.echo(written_for(ctx.find_root().command, {}, "cqrs", "_CQRS_COMPLETE").source())
