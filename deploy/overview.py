"""How the whole of a deployment is: servers, topics, workers, dead letters, views, what to do next.

Each part is asked for by itself, and what cannot be found out is a line in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka.errors import KafkaError

from agents.users import USERS
from agents.views import VIEWS
from deploy.doctor.ask_kafka import ask_groups, groups_of
from deploy.doctor.kafka_findings import dead_letters_command
from deploy.embedded.status import ServerStatus
from models.errors import CqrsError, Fatal
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connected
from streams.kafka.clients import admin_client
from streams.kafka.groups import committed_positions
from streams.kafka.log_reader import open_logs
from streams.kafka.refusal import Unreachable
from streams.kafka.topics import describe_topics, partitions_of, topic_faults, topic_specs
from streams.progress import no_progress
from streams.settings import Settings
from streams.views.status import IndexStatus, status_of

T = TypeVar("T")

_REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class WorkersStatus:
    """The workers of one role: the members of its consumer group."""

    role: str
    """As in `cqrs worker`."""
    group: str
    """Its consumer group."""
    workers: int
    """Number of members of the group."""
    behind: int | None
    """Records that are not processed yet; None if that is said elsewhere, or not known."""


@dataclass(frozen=True)
class Overview:
    """What was found. What is None could not be looked at; `troubles` say why."""

    servers: Sequence[ServerStatus]
    topics: int | None = None
    missing_topics: Sequence[str] = ()
    workers: Sequence[WorkersStatus] | None = None
    dead_letters: Mapping[str, int] | None = None
    """By topic; transaction markers count, so there may be fewer."""
    views: Mapping[str, Sequence[IndexStatus]] | None = None
    troubles: Sequence[str] = field(default=())
    explained: Collection[str] = ()
    """Names of servers of which `troubles` say why they do not answer: starting them is no help."""

    @property
    def running(self) -> bool:
        """Whether both servers run."""
        return all(server.state == "running" for server in self.servers)

    @property
    def next_steps(self) -> list[str]:
        """What to do next, one line each; empty if all is well."""
        if not self.running:
            missing = [
                server.name
                for server in self.servers
                if server.state != "running" and server.name not in self.explained
            ]
            start = (
                f"start {' and '.join(missing)} (`cqrs dev` or `cqrs up`), or set "
                "CQRS_BOOTSTRAP_SERVERS and CQRS_ELASTICSEARCH_URL"
            )
            return [*self.troubles, *([start] if missing else ())]
        steps = list(self.troubles)
        if self.missing_topics:
            steps.append("create the topics: `cqrs topics create`")
        elif self.workers is not None:
            steps += [
                f"start a worker: `cqrs worker {one.role}`"
                for one in self.workers
                if not one.workers
            ]
        for topic, count in (self.dead_letters or {}).items():
            if count:
                steps.append(f"look at the dead letters in {topic}: {dead_letters_command(topic)}")
        for view, indices in (self.views or {}).items():
            steps += [f"{view}: {index.trouble}" for index in indices if index.trouble]
        return steps


async def check_servers(settings: Settings) -> Overview:
    """Return whether the servers of the settings answer, wherever they are, and what says why not.

    Nothing else is looked at.
    """

    async def ask_kafka() -> None:
        async with admin_client(settings):
            pass

    async def ask_elasticsearch() -> None:
        async with connected(settings, timeout=_REQUEST_TIMEOUT_S):
            pass

    errors = await asyncio.gather(_failure(ask_kafka), _failure(ask_elasticsearch))
    addresses = {"kafka": settings.bootstrap_servers, "elasticsearch": settings.elasticsearch_url}
    failures = dict(zip(addresses, errors, strict=True))
    reasons = {name: str(error) for name, error in failures.items() if _is_a_reason(error)}
    return Overview(
        [
            ServerStatus(
                name, "does not answer" if failures[name] else "running", None, address, 0, 0
            )
            for name, address in addresses.items()
        ],
        troubles=[*reasons.values()],
        explained=[*reasons],
    )


async def _failure(ask: Callable[[], Awaitable[None]]) -> CqrsError | None:
    try:
        await ask()
    except CqrsError as error:
        return error
    return None


def _is_a_reason(error: CqrsError | None) -> bool:
    """Whether it says more than that nothing answers: settings or credentials are wrong."""
    return isinstance(error, Fatal) and not isinstance(error, Unreachable)


async def look(settings: Settings, servers: Sequence[ServerStatus]) -> Overview:
    """Look at everything, with servers that run."""
    troubles: list[str] = []

    async def attempt(part: Awaitable[T]) -> T | None:
        try:
            return await part
        except CqrsError as error:
            troubles.append(str(error))
        except KafkaError as error:
            troubles.append(f"Kafka failed: {type(error).__name__}")
        return None

    specs = topic_specs(settings, TopicNames.of(settings, USERS.name))
    found = await attempt(describe_topics(settings, specs))
    if found is None:
        return Overview(servers, troubles=troubles)
    missing = [spec.name for spec in specs if spec.name not in found]
    faults = [] if missing else list(map(str, topic_faults(settings, specs, found)))
    if missing or faults:
        return Overview(servers, len(found), missing, troubles=faults)
    workers = await attempt(_workers(settings))
    dead = await attempt(_dead_letters(settings))
    views: dict[str, Sequence[IndexStatus]] = {}
    for name, view in VIEWS.items():
        indices = await attempt(status_of(settings, view, check=False, progress=no_progress))
        if indices is not None:
            views[name] = indices
    return Overview(servers, len(found), (), workers, dead, views, troubles)


async def _workers(settings: Settings) -> list[WorkersStatus]:
    return [
        WorkersStatus(
            group.role,
            group.name,
            group.members,
            await _behind(settings, group.name) if group.role == "commands" else None,
        )
        for group in await ask_groups(settings, groups_of(settings))
    ]


async def _behind(settings: Settings, group: str) -> int:
    """Return how many commands are not decided yet, as of about a second ago."""
    commands = partitions_of(settings, TopicNames.of(settings, USERS.name).commands)
    async with admin_client(settings) as admin:
        committed = await committed_positions(admin, group, commands)
    async with open_logs(settings, commands) as logs:
        begins, ends = await logs.begin_offsets(commands), await logs.end_offsets(commands)
    return sum(max(0, ends[tp] - committed.get(tp, begins[tp])) for tp in commands)


async def _dead_letters(settings: Settings) -> dict[str, int]:
    names = TopicNames.of(settings, USERS.name)
    found = {}
    for topic in (names.dead_commands, names.dead_views):
        partitions = partitions_of(settings, topic)
        async with open_logs(settings, partitions) as logs:
            begins = await logs.begin_offsets(partitions)
            ends = await logs.end_offsets(partitions)
        found[topic] = sum(ends[tp] - begins[tp] for tp in partitions)
    return found
