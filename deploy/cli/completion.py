"""`cqrs completion`: what a shell reads to complete commands, options and values."""

from __future__ import annotations

from typing import Literal

import click
from click.shell_completion import get_completion_class

from deploy.cli.terminal import examples

Shell = Literal["bash", "zsh", "fish"]


@click.command(
    epilog=examples(
        'eval "$(cqrs completion bash)"',
        "cqrs completion zsh > ~/.zfunc/_cqrs",
        "cqrs completion fish > ~/.config/fish/completions/cqrs.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: Shell) -> None:
    """Print the completion script of a SHELL.

    Put the line of the example into the shell's start-up file. The command has to be on the PATH:
    in a checkout, `PATH=$PWD/.venv/bin:$PATH` puts it there.
    """
    complete = get_completion_class(shell)
    assert complete is not None, "click knows these three"
    click.echo(complete(ctx.find_root().command, {}, "cqrs", "_CQRS_COMPLETE").source())
