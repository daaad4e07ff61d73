"""`cqrs generate`: sample commands."""

from __future__ import annotations

from itertools import islice

import click
import orjson

from deploy.cli.terminal import examples
from deploy.samples.commands import generate as generate_commands

_AT_A_TIME = 500


@click.command(
    epilog=examples(
        "cqrs generate 100000 | cqrs send --from -", "cqrs generate 3 --seed 7 > commands.ndjson"
    )
)
@click.argument("count", metavar="N", type=click.IntRange(min=0))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same commands.")
def generate(count: int, seed: int) -> None:
    """Write N sample commands as newline-delimited JSON.

    They look like life: registrations, changes, repeats, and some that have to be rejected.
    """
    commands = generate_commands(count, seed)
    out = click.get_binary_stream("stdout")
    while some := list(islice(commands, _AT_A_TIME)):
        out.write(b"".join(orjson.dumps(command) + b"\n" for command in some))
    out.flush()
