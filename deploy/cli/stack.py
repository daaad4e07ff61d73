"""`cqrs up`, `down`, `status` and `logs`: the embedded stack from the command line."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

import click

from deploy.cli.exit_codes import ExitCode
from deploy.embedded.processes import SERVERS
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from deploy.embedded.status import StackStatus
from deploy.roles import ROLES
from models.errors import Fatal

_POLL_INTERVAL_S = 0.3
_PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--kafka-port", type=_PORT, help="Port of Kafka; 0 chooses a free one.")
@click.option(
    "--elasticsearch-port", type=_PORT, help="Port of Elasticsearch; 0 chooses a free one."
)
@click.option(
    "--secure", is_flag=True, help="With TLS, passwords and rights; it stays so until it is purged."
)
def up(kafka_port: int | None, elasticsearch_port: int | None, secure: bool) -> None:
    """Start the embedded Kafka and Elasticsearch, and leave them running.

    The first start downloads them. It chooses free ports unless you name some; later starts use
    the same ports again. A server that runs already is left as it is.

    With --secure, each role gets its rights in CQRS_NAMESPACE, and a file to source in the shell
    that runs it. The security module of Elasticsearch is under the Elastic License.
    """
    stack = EmbeddedStack(
        kafka_port=kafka_port, elasticsearch_port=elasticsearch_port, secure=secure
    )
    address = stack.up(TerminalProgress())
    click.echo(f"Kafka          {address.bootstrap_servers}")
    click.echo(f"Elasticsearch  {address.elasticsearch_url}")
    if address.is_secure:
        for role in ROLES:
            click.echo(f"{role:<15}. {shlex.quote(str(stack.secrets.folder / f'{role}.env'))}")


@click.command()
@click.option("--purge", is_flag=True, help="Also remove the data, the logs and the chosen ports.")
def down(purge: bool) -> None:
    """Stop the embedded Kafka and Elasticsearch; the data is kept unless you purge it."""
    stack = EmbeddedStack()
    if not stack.home.exists():
        click.echo(f"there is no stack in {stack.home}")
        return
    stack.down(purge)
    click.echo("stopped, and all data removed" if purge else "stopped, the data is kept")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show both servers: state, address, process id, memory and data.

    Exit code 0 if both run, otherwise 3.
    """
    found = EmbeddedStack().status()
    if as_json:
        click.echo(json.dumps(asdict(found), default=str))
    else:
        _print_table(found)
    ctx.exit(ExitCode.OK if found.running else ExitCode.NOT_RUNNING)


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
@click.option(
    "--lines",
    default=40,
    show_default=True,
    type=click.IntRange(0),
    help="Last lines to show of each log.",
)
@click.option("--follow", "-f", is_flag=True, help="Continue with new lines until Ctrl-C.")
def logs(server: str | None, lines: int, follow: bool) -> None:
    """Show the logs of the servers, or of the one that you name."""
    stack = EmbeddedStack()
    shown = [one for one in (stack.kafka, stack.elasticsearch) if server in (None, one.name)]
    tails = [Tail(one.log, "" if server else f"{one.name:14}") for one in shown]
    for tail in tails:
        for line in deque(tail.new_lines(), lines):
            click.echo(line)
    while follow:
        time.sleep(_POLL_INTERVAL_S)
        for tail in tails:
            for line in tail.new_lines():
                click.echo(line)


class Tail:
    """Reads a log line by line and follows it, also when it is rotated."""

    def __init__(self, path: Path, label: str) -> None:
        """`label` is put in front of every line."""
        self._path = path
        self._label = label
        self._inode = self._offset = 0

    def new_lines(self) -> list[str]:
        """Return the complete lines that were logged since the last call.

        Raises:
            Fatal: there is no log, and there was none before.
        """
        try:
            log = self._path.open("rb")
        except FileNotFoundError:
            if self._inode:  # it is being rotated
                return []
            raise Fatal(f"nothing was logged yet in {self._path}") from None
        with log:
            inode = os.fstat(log.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            log.seek(self._offset)
            whole = log.read().rpartition(b"\n")[0]  # the last line may be incomplete
        self._offset += len(whole) + 1 if whole else 0
        return [self._label + line for line in whole.decode(errors="replace").splitlines()]
