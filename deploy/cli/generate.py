"""`cqrs generate`: write sample commands."""

from __future__ import annotations

from itertools import islice

import click
import orjson

from deploy.cli.terminal import examples
from deploy.samples.commands import generate as generate_commands

_COMMANDS_PER_WRITE = 500


@click.command(
    epilog=examples(
        "cqrs generate 100000 | cqrs send --from -", "cqrs generate 3 --seed 7 > commands.ndjson"
    )
)
@click.argument("count", metavar="N", type=click.IntRange(min=0))
@click.option(
    "--seed",
    default=1,
    show_default=True,
    help="Seed of the random choices: the same seed writes the same commands.",
)
def generate(count: int, seed: int) -> None:
    """Write N sample commands as newline-delimited JSON.

    They resemble real traffic: registrations, changes, repeats, and some that must be rejected.
    """
    commands = generate_commands(count, seed)
    out = click.get_binary_stream("stdout")
    while chunk := list(islice(commands, _COMMANDS_PER_WRITE)):
        out.write(b"".join(orjson.dumps(command) + b"\n" for command in chunk))
    out.flush()
