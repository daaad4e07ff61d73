"""`cqrs up`, `down`, `status` and `logs`: the embedded stack from the command line."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

import click

from deploy.embedded.processes import SERVERS
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from deploy.embedded.status import StackStatus
from models.errors import Fatal

_NOT_RUNNING = 3  # the exit code of `status`, as service managers have it
_FOLLOW_SECONDS = 0.3
_PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--kafka-port", type=_PORT, help="Where Kafka listens; 0: any free port.")
@click.option("--elasticsearch-port", type=_PORT, help="The same for Elasticsearch.")
def up(kafka_port: int | None, elasticsearch_port: int | None) -> None:
    """Start the embedded Kafka and Elasticsearch, and leave them running.

    The first start downloads them. Ports are free ones unless named, and stay the same from then
    on. What runs already is left alone.
    """
    stack = EmbeddedStack(kafka_port=kafka_port, elasticsearch_port=elasticsearch_port)
    address = stack.up(TerminalProgress())
    click.echo(f"Kafka          {address.bootstrap_servers}")
    click.echo(f"Elasticsearch  {address.elasticsearch_url}")


@click.command()
@click.option("--purge", is_flag=True, help="Remove the data, the logs and the ports too.")
def down(purge: bool) -> None:
    """Stop the embedded stack; the data stays unless purged."""
    EmbeddedStack().down(purge)
    click.echo("stopped, and all data removed" if purge else "stopped, the data is kept")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what runs where; exit code 0 if both servers run, else 3."""
    found = EmbeddedStack().status()
    if as_json:
        click.echo(json.dumps(asdict(found), default=str))
    else:
        _print_table(found)
    ctx.exit(0 if found.running else _NOT_RUNNING)


def _print_table(found: StackStatus) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(f"stack in {found.home}", highlight=False)
    table = Table("server", "state", "address", "pid", "memory", "data")
    for server in found.servers:
        table.add_row(
            server.name,
            server.state,
            server.address or "-",
            str(server.pid or "-"),
            f"{server.memory_mb} MB",
            f"{server.data_mb} MB",
        )
    console.print(table)


@click.command()
@click.argument("server", type=click.Choice(SERVERS), required=False)
@click.option("--lines", default=40, show_default=True, type=click.IntRange(0), help="Per server.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is logged from now on.")
def logs(server: str | None, lines: int, follow: bool) -> None:
    """Show what the servers have logged: one of them, or both."""
    stack = EmbeddedStack()
    shown = [one for one in (stack.kafka, stack.elasticsearch) if server in (None, one.name)]
    tails = [Tail(one.log, "" if server else f"{one.name:14}") for one in shown]
    for tail in tails:
        for line in deque(tail.new_lines(), lines):
            click.echo(line)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        for tail in tails:
            for line in tail.new_lines():
                click.echo(line)


class Tail:
    """The lines of a log, and those that come, also after it was rotated."""

    def __init__(self, path: Path, label: str) -> None:
        self._path = path
        self._label = label
        self._inode = self._offset = 0

    def new_lines(self) -> list[str]:
        """What was logged since the last call."""
        try:
            log = self._path.open("rb")
        except FileNotFoundError:
            if self._inode:  # between two logs of a rotation
                return []
            raise Fatal(f"nothing was logged yet in {self._path}") from None
        with log:
            inode = os.fstat(log.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            log.seek(self._offset)
            whole = log.read().rpartition(b"\n")[0]  # the last line may still be in the writing
        self._offset += len(whole) + 1 if whole else 0
        return [self._label + line for line in whole.decode(errors="replace").splitlines()]
