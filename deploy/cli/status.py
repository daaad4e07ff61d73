"""`cqrs status`: servers, topics, workers, dead letters, views, and what to do next."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import examples, waiting
from deploy.colour import Verdict, marked
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.status import ServerStatus
from deploy.environment import load_settings
from deploy.overview import Overview, WorkersStatus, check_servers, look
from models.errors import CqrsError
from streams.settings import read_settings
from streams.views.status import IndexStatus

_ADDRESSES = {"bootstrap_servers", "elasticsearch_url"}
_LABEL_COLUMNS = 10


@dataclass(frozen=True)
class Status:
    """How the whole is. A part that could not be looked at is null; `troubles` say why."""

    home: Path
    """Folder of the stack of `cqrs dev` or `cqrs up`, also if other servers are meant."""
    running: bool
    """Whether both servers run."""
    servers: Sequence[ServerStatus]
    topics: int | None
    """Number of topics that exist, of those that are needed."""
    missing_topics: Sequence[str]
    workers: Sequence[WorkersStatus] | None
    dead_letters: Mapping[str, int] | None
    """Number of dead letters, by topic. Transaction markers count, so there may be fewer."""
    views: Mapping[str, Sequence[IndexStatus]] | None
    """The indices of each view, by its name."""
    troubles: Sequence[str]
    """What could not be found out, and why."""
    next: Sequence[str]
    """What to do next, one line each; empty if all is well."""


_OUTPUT = Output(
    Status,
    line=ServerStatus,
    columns=("name", "state", "pid", "address", "memoryMb", "dataMb"),
)


@click.command(
    epilog=examples("cqrs status", "cqrs status --json | jq .next", "cqrs status -o tsv")
)
@_OUTPUT.option
@click.pass_context
def status(ctx: click.Context, form: Form) -> None:
    """Show the whole: servers, topics, workers, dead letters, views, and what to do next.

    The servers are those of CQRS_BOOTSTRAP_SERVERS and CQRS_ELASTICSEARCH_URL; without these, the
    stack of `cqrs dev` or `cqrs up`. Exit code 0 if both run, otherwise 3.
    """
    stack = EmbeddedStack()
    with waiting("Asking the servers"):
        found = asyncio.run(_look(stack))
    document = Status(
        home=stack.home,
        running=found.running,
        servers=found.servers,
        topics=found.topics,
        missing_topics=found.missing_topics,
        workers=found.workers,
        dead_letters=found.dead_letters,
        views=found.views,
        troubles=found.troubles,
        next=found.next_steps,
    )
    _OUTPUT.write(form, document, lambda: _print(stack, found), lines=found.servers)
    ctx.exit(ExitCode.OK if found.running else ExitCode.NOT_RUNNING)


async def _look(stack: EmbeddedStack) -> Overview:
    found = Overview(stack.status().servers)
    try:
        settings = load_settings()
    except CqrsError as error:
        return replace(found, troubles=[str(error)])
    addresses = {server.address for server in found.servers}
    is_ours = {settings.bootstrap_servers, settings.elasticsearch_url} == addresses
    if not is_ours and _ADDRESSES & read_settings().model_fields_set:
        found = await check_servers(settings)
    return await look(settings, found.servers) if found.running else found


def _print(stack: EmbeddedStack, found: Overview) -> None:
    if all(server.pid or server.state == "stopped" for server in found.servers):
        click.echo(f"stack in {stack.home}")
    rows = [
        (
            server.name,
            Verdict(server.state, "good" if server.state == "running" else "bad"),
            server.address or "-",
            server.pid or "-",
            *((f"{server.memory_mb} MB", f"{server.data_mb} MB") if server.pid else ("-", "-")),
        )
        for server in found.servers
    ]
    print_table(
        ("server", "state", "address", "pid", "memory", "data"),
        rows,
        right=("pid", "memory", "data"),
        droppable=("data", "memory"),
    )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for label, line, is_late in _lines(found):
        # Indented, and no word is broken: commands and variables are copied.
        indent = _LABEL_COLUMNS + (len("! ") if is_late else 0)
        text = textwrap.fill(
            line,
            max(width - indent, 20) + indent,
            initial_indent=" " * indent,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        ).lstrip()
        click.echo(f"{label:<{_LABEL_COLUMNS}}{marked(text, 'late') if is_late else text}")


def _lines(found: Overview) -> Iterator[tuple[str, str, bool]]:
    """Yield what is known beside the servers: a label, a line, and whether somebody has to look."""
    if found.topics is not None:
        missing = f", {len(found.missing_topics)} missing" if found.missing_topics else ""
        yield "topics", f"{found.topics}{missing}", bool(missing)
    label = "workers"
    for one in found.workers or ():
        behind = "" if one.behind is None else f", {one.behind:,} commands behind"
        yield label, f"{one.role}: {one.workers or 'none'}{behind}", bool(one.behind)
        label = ""
    label = "views"
    for view, indices in (found.views or {}).items():
        yield label, f"{view}: {', '.join(map(_index, indices)) or 'no index yet'}", False
        label = ""
    if found.dead_letters is not None:
        label = "dead"
        for topic, count in found.dead_letters.items():
            yield label, f"{topic}: {count or 'none'}", bool(count)
            label = ""
    label = "next"
    for step in found.next_steps:
        yield label, step, True
        label = ""


def _index(index: IndexStatus) -> str:
    if index.behind is None:
        return f"{index.name} {index.state}"
    documents = f"{index.documents:,} documents, " if index.documents is not None else ""
    return f"{index.name} {index.state}, {documents}{index.behind:,} behind"
