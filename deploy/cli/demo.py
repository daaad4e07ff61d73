"""`cqrs demo`: run everything once, from commands to searches, and check all numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import click
from pydantic.alias_generators import to_camel

from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import examples, progress_bar
from deploy.cli.verify import print_report
from deploy.colour import marked
from deploy.demo import COMMANDS, DemoResult, percentiles, run_demo
from deploy.embedded.secrets import ADMIN
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from deploy.environment import child_environment
from deploy.supervisor import SECURED_ROLES, Role, running_worker
from models.errors import CqrsError, Fatal
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connect as connect_elasticsearch
from streams.kafka.clients import admin_client
from streams.kafka.topics import create_topics, topic_specs
from streams.settings import Settings
from streams.views.indices import ViewIndices

if TYPE_CHECKING:
    from models.user_view import UserReadModel

_ROLES: tuple[Role, ...] = ("commands", "views")

_SettingsOf = Callable[[str], Settings]
"""The settings of a principal; the same ones for all if nothing is secured."""


@dataclass(frozen=True)
class DemoFigures:
    """Counts of the demo's commands, as `cqrs verify` has them, and times."""

    commands: int
    accepted: int
    rejected: int
    duplicate: int
    dead_lettered: int
    events: int
    documents: int | None
    commands_per_second: int
    """Decided, of the 20,000 that were sent at once."""
    produced_to_outcome_p50_ms: int
    """Of commands that come one by one afterwards, as the next three."""
    produced_to_outcome_p99_ms: int
    produced_to_searchable_p50_ms: int
    produced_to_searchable_p99_ms: int
    search_p50_ms: float
    search_p99_ms: float


_OUTPUT = Output(DemoFigures, columns=[to_camel(one.name) for one in fields(DemoFigures)])


@click.command(epilog=examples("cqrs demo", "cqrs demo --secure", "cqrs demo --json"))
@_OUTPUT.option
@click.option("--secure", is_flag=True, help="On servers of its own, with TLS, users and rights.")
def demo(form: Form, secure: bool) -> None:
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
        for role, log in zip(_ROLES, logs, strict=True):
            environment = child_environment(of(SECURED_ROLES[role]))
            resources.enter_context(running_worker(role, environment, log))
        with progress_bar() as progress:
            try:
                result = asyncio.run(run_demo(settings, progress))
            except (CqrsError, asyncio.TimeoutError) as error:
                raise Fatal(f"the demo failed: {error!r}\n{_last_lines(logs)}") from error
    figures = _figures(result)
    _OUTPUT.write(form, figures, lambda: _print(result, figures))
    result.check()
    if form == "table":
        click.echo(marked("Everything adds up: nothing was lost, doubled or mixed up.", "good"))
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


def _figures(result: DemoResult) -> DemoFigures:
    outcomes, searchable, searches = map(
        percentiles, (result.outcomes, result.searchable, result.searches)
    )
    report = result.report
    return DemoFigures(
        commands=report.commands,
        accepted=report.accepted,
        rejected=report.rejected,
        duplicate=report.duplicate,
        dead_lettered=report.dead,
        events=report.events,
        documents=report.documents,
        commands_per_second=round(result.decided_per_second),
        produced_to_outcome_p50_ms=round(outcomes[0]),
        produced_to_outcome_p99_ms=round(outcomes[1]),
        produced_to_searchable_p50_ms=round(searchable[0]),
        produced_to_searchable_p99_ms=round(searchable[1]),
        search_p50_ms=round(searches[0], 1),
        search_p99_ms=round(searches[1], 1),
    )


def _print(result: DemoResult, found: DemoFigures) -> None:
    rows: list[tuple[object, ...]] = []
    for query, users in (
        ("by id", (result.by_id,)),
        (f"email has {result.fragment}", result.by_email),
        ("active", result.active),
    ):
        rows += [(query, *_row(user)) for user in users if user is not None]
    print_table(
        ("query", "id", "name", "email", "active"), rows, droppable=("active", "name", "query")
    )
    figures = [(name.replace("_", " "), f"{value:,}") for name, value in asdict(found).items()]
    print_table((f"{COMMANDS:,} commands", ""), figures, right=("",))
    print_report(result.report)


def _row(user: UserReadModel) -> tuple[object, ...]:
    return user.id, f"{user.first_name} {user.last_name}", user.email, user.is_active
