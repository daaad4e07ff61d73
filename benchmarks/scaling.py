"""What a command costs with many aggregates, and how much a second worker helps."""

from __future__ import annotations

import glob
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import NamedTuple
from uuid import UUID

import orjson
from aiokafka.admin import AIOKafkaAdminClient

from agents.users import COMMAND_WORKER
from benchmarks.deciding import COMMANDS_PER_SECOND, CPU_PER_COMMAND
from benchmarks.rig.backlog import new_deployment, rate, read_committed, send, send_at_once
from benchmarks.rig.changelog_history import states, write_changelog
from benchmarks.rig.group import ContestantGroup
from benchmarks.rig.process import RunningContestant, contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from streams.aggregate import TopicNames
from streams.kafka.clients import admin_client
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of
from streams.settings import Settings

_WINDOW = 3  # remembered commands of each aggregate
_TIMEOUT_S = 600.0

_Record = tuple[bytes, bytes]


class _Sample(NamedTuple):
    """CPU seconds used so far, and bytes on disk."""

    workers: Sequence[float]  # CPU seconds of each
    servers: float  # CPU seconds of Kafka and Elasticsearch
    disk: Mapping[str, int]  # bytes of each topic


async def scale(context: BenchContext, *, aggregates: str, workers: int) -> Figures:
    """Let `workers` workers decide changes of random aggregates, which exist already.

    `aggregates` is the entry of the benchmark's size that has their number.
    """
    settings, names = await new_deployment(context)
    users = context.size[aggregates]
    values = states(_WINDOW, context.seed)
    await write_changelog(settings, names, aggregates=users, records=users, values=values)
    changes = _changes(users, context.seed)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                contestant(
                    command_line(ROLES["commands"]),
                    settings,
                    context.folder / f"{settings.namespace}commands-{number}.log",
                )
            )
            for number in range(workers)
        ]
        async with admin_client(settings) as admin:
            group = _Group(context, settings, names, admin, processes)
            await wait_until(
                group.is_complete, timeout=_TIMEOUT_S, what=f"{workers} workers have joined"
            )
            first = _one_for_each(settings, changes)
            await send(settings, names.commands, first)
            await group.decide(len(first))
            records = [next(changes) for _ in range(context.size["commands"])]
            begin = group.sample()
            await send_at_once(settings, names.commands, records)
            await group.decide(len(first) + len(records))
            end = group.sample()
    outcomes = await read_committed(settings, names.outcomes)
    times = sorted(one.timestamp / 1000 for one in outcomes)
    per_second = rate(times, len(first) + context.size["warm-up"])
    return _figures(begin, end, len(records), per_second)


class _Group:
    """The consumer group of the workers, observed from outside."""

    def __init__(
        self,
        context: BenchContext,
        settings: Settings,
        names: TopicNames,
        admin: AIOKafkaAdminClient,
        processes: Sequence[RunningContestant],
    ) -> None:
        self._servers = context.stack.kafka, context.stack.elasticsearch
        self._group = ContestantGroup(
            admin,
            settings.namespace + COMMAND_WORKER,
            partitions_of(settings, names.commands),
            processes,
            members=len(processes),
        )
        self._topics = {
            "commands": names.commands,
            "events": names.events,
            "outcomes": names.outcomes,
            "changelog": names.changelog,
        }
        self._logs = context.stack.home / "data" / "kafka"

    async def is_complete(self) -> bool:
        """Check whether all workers have joined and the group is stable."""
        return await self._group.is_complete()

    def sample(self) -> _Sample:
        """Return what has been used until now."""
        return _Sample(
            self._group.cpu_seconds(),
            sum(
                used.user + used.system
                for server in self._servers
                if (running := server.process) and (used := running.cpu_times())
            ),
            {name: self._disk(topic) for name, topic in self._topics.items()},
        )

    def _disk(self, topic: str) -> int:
        segments = self._logs.glob(f"{glob.escape(topic)}-*/*.log")
        return sum(segment.stat().st_size for segment in segments)

    async def decide(self, commands: int) -> None:
        """Wait until the group has committed this number of commands, up to a second afterwards."""

        async def decided() -> bool:
            return sum((await self._group.positions()).values()) >= commands

        await wait_until(decided, timeout=_TIMEOUT_S, what=f"{commands} commands are decided")


def _changes(users: int, seed: int) -> Iterator[_Record]:
    """Yield keys and values of commands that change random users, without end."""
    rng = random.Random(seed)
    for number in count():
        name = f"user-{rng.randrange(users)}"
        command = {
            "type": "UpdateUserProfile",
            "id": str(UUID(int=rng.getrandbits(128), version=4)),
            "aggregateId": name,
            "timestamp": "2026-01-02T03:04:05.678Z",
            "lastName": f"Number {number}",
        }
        yield name.encode(), orjson.dumps(command)


def _one_for_each(settings: Settings, changes: Iterator[_Record]) -> list[_Record]:
    """Return a command for each partition: it is decided as soon as the state is restored."""
    found: dict[int, _Record] = {}
    while len(found) < settings.partitions:
        record = next(changes)
        found.setdefault(partition_of(record[0], settings.partitions), record)
    return list(found.values())


def _figures(begin: _Sample, end: _Sample, commands: int, per_second: float) -> Figures:
    workers = [
        (after - before) / commands
        for before, after in zip(begin.workers, end.workers, strict=True)
    ]
    servers = (end.servers - begin.servers) / commands
    return {
        COMMANDS_PER_SECOND: per_second,
        CPU_PER_COMMAND: sum(workers) * 1e6,
        "servers' CPU µs/command": servers * 1e6,
        **{f"cores, worker {n}": used * per_second for n, used in enumerate(workers, 1)},
        "cores, servers": servers * per_second,
        **{
            f"{topic}, bytes on disk/command": (end.disk[topic] - begin.disk[topic]) / commands
            for topic in end.disk
        },
    }


SCALING = Benchmark(
    name="scaling",
    about=(
        "The cost of a command with many users, or with two workers. Commands that change random "
        "users on four partitions become visible, all at the same time, to workers that have "
        "restored their state and are idle. Counted as in deciding, after a warm-up; the CPU "
        "is that of all commands. Cores are CPU seconds per second: of each worker, and of Kafka "
        "and Elasticsearch together, of which the latter has nothing to do."
    ),
    sizes={
        "small": {
            "aggregates": 10_000,
            "many aggregates": 100_000,
            "commands": 60_000,
            "warm-up": 20_000,
        },
        "full": {
            "aggregates": 100_000,
            "many aggregates": 2_000_000,
            "commands": 200_000,
            "warm-up": 40_000,
        },
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "One command worker.",
            partial(scale, aggregates="aggregates", workers=1),
        ),
        Contestant(
            "cqrs-streams, many aggregates",
            "The same with the larger number of users (`many aggregates` below).",
            partial(scale, aggregates="many aggregates", workers=1),
        ),
        Contestant(
            "cqrs-streams, two workers",
            "Two processes that share the four partitions, with the smaller number of users.",
            partial(scale, aggregates="aggregates", workers=2),
        ),
    ),
    targets=(
        Target(CPU_PER_COMMAND, most=1.1, of="cqrs-streams, many aggregates", to="cqrs-streams"),
    ),
)
