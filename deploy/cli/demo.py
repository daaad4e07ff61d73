"""`cqrs demo`: run everything once, from commands to searches, and check all numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.cli.terminal import progress_bar
from deploy.cli.verify import print_report
from deploy.demo import COMMANDS, DemoResult, percentiles, run_demo
from deploy.embedded.secrets import ADMIN
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from deploy.environment import child_environment
from deploy.roles import SecuredRole
from deploy.supervisor import Role, running_worker
from models.errors import CqrsError, Fatal
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connect as connect_elasticsearch
from streams.kafka.clients import admin_client
from streams.kafka.topics import create_topics, topic_specs
from streams.settings import Settings
from streams.views.indices import ViewIndices

if TYPE_CHECKING:
    from models.user_view import UserReadModel

_ROLES: Mapping[Role, SecuredRole] = {"commands": "command-worker", "views": "view-worker"}

_SettingsOf = Callable[[str], Settings]
"""The settings of a principal; the same ones for all if nothing is secured."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
@click.option("--secure", is_flag=True, help="On servers of its own, with TLS, users and rights.")
def demo(as_json: bool, secure: bool) -> None:
    """Send 20,000 commands through real servers and workers, search, and check everything.

    Uses the running stack (`cqrs up`), in a namespace that is removed at the end. If none runs, it
    starts one and stops it at the end. Exit code 0 only if all numbers are as expected.
    """
    with ExitStack() as resources:
        of = resources.enter_context(_servers(secure))
        settings = of("operator")
        names = TopicNames.of(settings, USERS.name)
        asyncio.run(_create_topics(settings, names))
        resources.callback(lambda: asyncio.run(_remove(of(ADMIN), names)))
        folder = Path(resources.enter_context(TemporaryDirectory(prefix="cqrs-demo-")))
        logs = [folder / role for role in _ROLES]
        for (role, who), log in zip(_ROLES.items(), logs, strict=True):
            resources.enter_context(running_worker(role, child_environment(of(who)), log))
        with progress_bar() as progress:
            try:
                result = asyncio.run(run_demo(settings, progress))
            except (CqrsError, asyncio.TimeoutError) as error:
                raise Fatal(f"the demo failed: {error!r}\n{_last_lines(logs)}") from error
    if as_json:
        click.echo(json.dumps(_figures(result)))
    else:
        _print(result)
    result.check()
    if not as_json:
        click.echo("Everything adds up: nothing was lost, doubled or mixed up.")
        click.echo("To look around yourself: `cqrs dev`, then the first look of the README.")


@contextmanager
def _servers(secure: bool) -> Iterator[_SettingsOf]:
    """Yield settings for a new namespace on the running stack, or on a temporary one."""
    namespace = f"demo-{uuid4().hex[:8]}-"
    if secure:
        with EmbeddedStack.temporary(TerminalProgress(), secure=True) as stack:
            yield _secured(stack, namespace)
        return
    with ExitStack() as resources:
        stack = EmbeddedStack()
        if not stack.is_running:
            stack = resources.enter_context(EmbeddedStack.temporary(TerminalProgress()))
        if stack.address.is_secure:
            raise Fatal("the running stack is secured: `cqrs demo --secure` starts one of its own")
        # The environment may name other servers.
        settings = Settings.without_environment({**stack.address.settings, "namespace": namespace})
        yield lambda _: settings


def _secured(stack: EmbeddedStack, namespace: str) -> _SettingsOf:
    """Give each role its rights in the namespace, and return what gives its settings."""
    from deploy.embedded.grants import grant_roles

    def of(principal: str) -> Settings:
        # The environment may name another principal.
        return Settings.without_environment({**stack.settings(principal), "namespace": namespace})

    asyncio.run(grant_roles(of(ADMIN), stack.secrets))
    return of


async def _create_topics(settings: Settings, names: TopicNames) -> None:
    await create_topics(settings, topic_specs(settings, names))


async def _remove(settings: Settings, names: TopicNames) -> None:
    """Remove the demo's topics and indices: the stack may be one that continues to run."""
    async with admin_client(settings) as admin:
        await admin.delete_topics([spec.name for spec in topic_specs(settings, names)])
    async with connect_elasticsearch(settings, timeout=30) as client:
        indices = ViewIndices.from_settings(settings, client, USER_VIEWS)
        for state in await indices.all():
            await indices.drop(state.name)


def _last_lines(logs: list[Path]) -> str:
    """Return the last lines of the workers' logs: they often show why the demo failed."""
    lines = (log.read_text(errors="replace").splitlines()[-3:] for log in logs)
    return "\n".join(line for last in lines for line in last)


def _figures(result: DemoResult) -> dict[str, float | int | None]:
    outcomes, searchable, searches = map(
        percentiles, (result.outcomes, result.searchable, result.searches)
    )
    report = result.report
    return {
        "commands": report.commands,
        "accepted": report.accepted,
        "rejected": report.rejected,
        "duplicate": report.duplicate,
        "dead_lettered": report.dead,
        "events": report.events,
        "documents": report.documents,
        "commands_per_second": round(result.decided_per_second),
        "produced_to_outcome_p50_ms": round(outcomes[0]),
        "produced_to_outcome_p99_ms": round(outcomes[1]),
        "produced_to_searchable_p50_ms": round(searchable[0]),
        "produced_to_searchable_p99_ms": round(searchable[1]),
        "search_p50_ms": round(searches[0], 1),
        "search_p99_ms": round(searches[1], 1),
    }


def _print(result: DemoResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    users = Table("query", "id", "name", "email", "active", title="What the queries found")
    for query, found in (
        ("by id", (result.by_id,)),
        (f"email contains {result.fragment}", result.by_email),
        ("active, first five", result.active),
    ):
        for user in found:
            if user is not None:
                users.add_row(query, *_row(user))
                query = ""
        users.add_section()
    console.print(users)

    figures = Table("", "", title=f"{COMMANDS:,} commands", show_header=False)
    figures.columns[1].justify = "right"
    for name, value in _figures(result).items():
        figures.add_row(name.replace("_", " "), f"{value:,}")
    console.print(figures)
    print_report(result.report)


def _row(user: UserReadModel) -> tuple[str, str, str, str]:
    name = f"{user.first_name} {user.last_name}"
    return user.id, name, user.email, "yes" if user.is_active else "no"
