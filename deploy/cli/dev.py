"""`cqrs dev`: the servers, the topics and all workers in one terminal."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from agents.users import USERS
from deploy.cli.terminal import examples
from deploy.colour import painted
from deploy.embedded.ports import HOST, free_ports
from deploy.embedded.shared_files import alone
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from deploy.environment import child_environment, settings_on
from deploy.scraping import listed_targets
from deploy.supervisor import ROLES, SECURED_ROLES, Child, Supervisor, command_line
from streams.aggregate import TopicNames
from streams.encryption.key_ring import check_master_key
from streams.kafka.topics import create_topics, topic_specs
from streams.settings import Settings

_NAME_COLUMNS = 14
_COLOURS = ("cyan", "magenta", "blue", "bright_cyan", "bright_magenta")  # those without a meaning

_WHAT_TO_TRY = """
Everything is ready; Ctrl-C ends it and keeps the data. Try in another terminal:

    eval "$({cqrs} env)"
    {cqrs} send register --id anna --email anna@example.org \\
        --first-name Anna --last-name Muster
    {cqrs} search email nna@EX
    {cqrs} history anna
    {cqrs} status
"""


@click.command(epilog=examples("cqrs dev"))
def dev() -> None:
    """Run the servers, the topics and all workers in this terminal, until Ctrl-C.

    It starts the embedded Kafka and Elasticsearch as `cqrs up` does, unless they run already,
    creates the topics, and runs a worker of each role; one that fails is started again. Lines begin
    with the name of what wrote them. Ctrl-C stops what this command has started, and keeps the
    data. The process id of each worker is in a file in the stack's folder, commands.pid for one.
    `cqrs top` shows what the workers do.

    Personal data is encrypted, with a master key that stays in the stack's folder, unless
    CQRS_ENCRYPT_PERSONAL_DATA or CQRS_MASTER_KEY say something else. These servers are
    used, even if the environment names others.
    """
    stack = EmbeddedStack()
    stack.encrypt()
    runs_already = (
        f"`cqrs dev` runs already in {stack.home}: use its terminal, or end it there with Ctrl-C"
    )
    with (
        alone(stack.home / ".dev.lock", runs_already),
        stack.borrowed(TerminalProgress()) as address,
    ):
        _say("kafka", f"ready at {address.bootstrap_servers}")
        _say("elasticsearch", f"ready at {address.elasticsearch_url}")
        operator = settings_on(stack, "operator")
        asyncio.run(_prepare(operator))
        with ExitStack() as records:
            children = []
            for (role, app), port in zip(ROLES.items(), free_ports(len(ROLES)), strict=True):
                settings = settings_on(stack, SECURED_ROLES[role])
                own = {"log_format": "json", "health_port": port, "health_host": HOST}
                settings = settings.model_copy(update=own)
                records.enter_context(listed_targets(stack.worker_list(role), role, [settings]))
                children.append(Child(role, command_line(app), child_environment(settings)))
            on_line = _Workers(stack, len(children), records)
            code = asyncio.run(Supervisor(children, partial(_say, "dev"), on_line).run())
        _say("dev", "the workers have stopped; stopping the servers")
    raise click.exceptions.Exit(code)


async def _prepare(settings: Settings) -> None:
    """Create the topics, and check what would make every worker fail."""
    names = TopicNames.of(settings, USERS.name)
    created = await create_topics(settings, topic_specs(settings, names))
    _say("topics", f"ready, {settings.partitions} partitions each, {len(created)} created")
    await check_master_key(settings, names)


class _Workers:
    """Shows what workers log; once all are ready, what to try next."""

    def __init__(self, stack: EmbeddedStack, count: int, records: ExitStack) -> None:
        """Show the lines of so many workers; their process ids are in files until the end."""
        self._home = stack.home
        self._count = count
        self._records = records
        self._ready: set[str] = set()

    def __call__(self, worker: Child, line: str) -> None:
        """Show a line; one in JSON is the worker's, any other one is a library's."""
        fields = _fields(line)
        text = fields.get("message", line)
        if fields.get("level", "INFO") not in ("INFO", "DEBUG"):
            text = f"{fields['level']}: {text}"
        _say(worker.name, text)
        if fields.get("event") == "worker-ready":
            self._on_ready(worker.name, fields["process"])

    def _on_ready(self, name: str, process: int) -> None:
        path = self._home / f"{name}.pid"
        path.write_text(f"{process}\n")
        if name in self._ready:
            return  # it was started again
        self._records.callback(path.unlink, missing_ok=True)
        self._ready.add(name)
        if len(self._ready) == self._count:
            click.echo(_WHAT_TO_TRY.format(cqrs=_how_it_is_called()))


def _how_it_is_called() -> str:
    """Return what a person types for `cqrs`, which `./run` does not put on the PATH."""
    if shutil.which("cqrs"):
        return "cqrs"
    return "./run cqrs" if (Path(__file__).parents[2] / "run").exists() else sys.argv[0]


def _fields(line: str) -> Mapping[str, Any]:
    """Return the fields of a worker's line; none if it is a library's, which is not JSON."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _say(name: str, line: str) -> None:
    """Print a line under the name of what says it, in a colour of its own."""
    colour = _COLOURS[sum(map(ord, name)) % len(_COLOURS)]
    click.echo(f"{painted(f'{name:<{_NAME_COLUMNS}}', colour)}| {line}")
