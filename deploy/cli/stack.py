"""`cqrs up`, `down` and `logs`: the embedded stack from the command line."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from deploy.cli.output import Form, Output
from deploy.cli.terminal import examples
from deploy.embedded.processes import SERVERS
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from deploy.roles import ROLES
from models.errors import Fatal

_POLL_INTERVAL_S = 0.3
_PORT = click.IntRange(0, 65535)


@dataclass(frozen=True)
class RunningStack:
    """Servers that run now."""

    bootstrap_servers: str
    """Address of Kafka: host:port."""
    elasticsearch_url: str
    home: Path
    """Folder with the data and everything else of the stack."""


@dataclass(frozen=True)
class StoppedStack:
    """Servers that do not run any more."""

    home: Path
    """Folder with the data and everything else of the stack."""
    state: Literal["stopped"]
    has_data: bool
    """Whether what the servers stored is still there."""


_RUNNING = Output(RunningStack, columns=("bootstrapServers", "elasticsearchUrl", "home"))
_STOPPED = Output(StoppedStack, columns=("home", "state", "hasData"))


@click.command(epilog=examples("cqrs up", "cqrs up --kafka-port 9092 --elasticsearch-port 9200"))
@click.option("--kafka-port", type=_PORT, help="Port of Kafka; 0 chooses a free one.")
@click.option(
    "--elasticsearch-port", type=_PORT, help="Port of Elasticsearch; 0 chooses a free one."
)
@click.option(
    "--secure", is_flag=True, help="With TLS, passwords and rights; it stays so until it is purged."
)
@_RUNNING.option
def up(kafka_port: int | None, elasticsearch_port: int | None, secure: bool, form: Form) -> None:
    """Start the embedded Kafka and Elasticsearch, and leave them running.

    The first start downloads them. It chooses free ports unless you name some; later starts use
    the same ports again. A server that runs already is left as it is.

    With --secure, each role gets its rights in CQRS_NAMESPACE; `cqrs env --role` prints what it
    needs. The security module of Elasticsearch is under the Elastic License.
    """
    stack = EmbeddedStack(
        kafka_port=kafka_port, elasticsearch_port=elasticsearch_port, secure=secure
    )
    address = stack.up(TerminalProgress())
    found = RunningStack(address.bootstrap_servers, address.elasticsearch_url, stack.home)

    def table() -> None:
        click.echo(f"Kafka          {address.bootstrap_servers}")
        click.echo(f"Elasticsearch  {address.elasticsearch_url}")
        click.echo(f"data in        {stack.home}")
        if address.is_secure:
            for role in ROLES:
                click.echo(f'{role:<15}eval "$(cqrs env --role {role})"')
        click.echo("`cqrs status` says what to do next")

    _RUNNING.write(form, found, table)


@click.command(epilog=examples("cqrs down", "cqrs down --purge"))
@click.option("--purge", is_flag=True, help="Also remove the data, the logs and the chosen ports.")
@_STOPPED.option
def down(purge: bool, form: Form) -> None:
    """Stop the embedded Kafka and Elasticsearch; the data is kept unless you purge it."""
    stack = EmbeddedStack()
    line = f"there is no stack in {stack.home}"
    if stack.home.exists():
        stack.down(purge)
        line = "stopped, and all data removed" if purge else "stopped, the data is kept"
    found = StoppedStack(stack.home, "stopped", (stack.home / "data").exists())
    _STOPPED.write(form, found, lambda: click.echo(line))


@click.command(epilog=examples("cqrs logs", "cqrs logs kafka --lines 100 --follow"))
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
