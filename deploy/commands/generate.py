"""`cqrs generate`: sample commands."""

from __future__ import annotations

from itertools import islice

import click
import orjson

from deploy.generate import generate as generate_commands

_AT_A_TIME = 500


@click.command()
@click.argument("count", metavar="N", type=click.IntRange(min=0))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same commands.")
def generate(count: int, seed: int) -> None:
    r"""Write N sample commands as newline-delimited JSON.

    They look like life: registrations, changes, repeats, and some that have to be rejected.

    \b
    cqrs generate 100000 | cqrs send --from -
    cqrs generate 3 --seed 7 > commands.ndjson
    """
    commands = generate_commands(count, seed)
    out = click.get_binary_stream("stdout")
    while some := list(islice(commands, _AT_A_TIME)):
        out.write(b"".join(orjson.dumps(command) + b"\n" for command in some))
    out.flush()
