"""What a command costs with many aggregates, and what a second worker brings."""

from __future__ import annotations

import glob
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from typing import NamedTuple
from uuid import UUID

import orjson
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from agents.users import COMMAND_WORKER
from benchmarks.deciding import COMMANDS_PER_SECOND, CPU_PER_COMMAND
from benchmarks.rig.backlog import committed, new_deployment, rate, send
from benchmarks.rig.changelog_history import states, write_changelog
from benchmarks.rig.process import RunningContestant, contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from streams.aggregate import TopicNames
from streams.commands.bulk_sender import BulkSender
from streams.kafka.clients import admin_client, new_producer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of
from streams.settings import Settings

_ANSWERS = 3  # in the dedupe window of each aggregate
_PATIENCE = 600.0  # seconds

_Record = tuple[bytes, bytes]


class _Sample(NamedTuple):
    """The CPU seconds of each process so far, and what is on disk."""

    workers: Sequence[float]
    servers: float
    disk: Mapping[str, int]  # bytes of each topic


async def scale(ground: BenchContext, *, aggregates: str, workers: int) -> Figures:
    """Let so many workers decide changes of random aggregates, which they know from before.

    `aggregates` is how the size calls their number.
    """
    settings, names = await new_deployment(ground)
    known = ground.size[aggregates]
    values = states(_ANSWERS, ground.seed)
    await write_changelog(settings, names, aggregates=known, records=known, values=values)
    changes = _changes(known, ground.seed)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                contestant(
                    command_line(ROLES["commands"]),
                    settings,
                    ground.folder / f"{settings.namespace}commands-{number}.log",
                )
            )
            for number in range(workers)
        ]
        async with admin_client(settings) as admin:
            group = _Group(ground, settings, names, admin, processes)
            await wait_until(
                group.is_complete, timeout=_PATIENCE, what=f"{workers} workers have joined"
            )
            first = _one_for_each(settings, changes)
            await send(settings, names.commands, first)
            await group.decide(len(first))
            records = [next(changes) for _ in range(ground.size["commands"])]
            begin = group.sample()
            await _send_at_once(settings, names.commands, records)
            await group.decide(len(first) + len(records))
            end = group.sample()
    outcomes = await committed(settings, names.outcomes)
    times = sorted(one.timestamp / 1000 for one in outcomes)
    per_second = rate(times, len(first) + ground.size["warm-up"])
    return _figures(begin, end, len(records), per_second)


class _Group:
    """The workers, seen from outside."""

    def __init__(
        self,
        ground: BenchContext,
        settings: Settings,
        names: TopicNames,
        admin: AIOKafkaAdminClient,
        processes: Sequence[RunningContestant],
    ) -> None:
        self._servers = ground.stack.kafka, ground.stack.elasticsearch
        self._name = settings.namespace + COMMAND_WORKER
        self._partitions = partitions_of(settings, names.commands)
        self._topics = {
            "commands": names.commands,
            "events": names.events,
            "outcomes": names.outcomes,
            "changelog": names.changelog,
        }
        self._logs = ground.stack.home / "data" / "kafka"
        self._admin = admin
        self._processes = processes

    async def is_complete(self) -> bool:
        """Whether all have joined, and each knows its partitions."""
        for process in self._processes:
            process.check()
        with suppress(GroupCoordinatorNotAvailableError):  # the group is new
            for response in await self._admin.describe_consumer_groups([self._name]):
                for _error, _group, state, _type, _protocol, members, *_ in response.groups:
                    return bool(state == "Stable" and len(members) == len(self._processes))
        return False

    def sample(self) -> _Sample:
        """As of now."""
        return _Sample(
            [process.cpu_seconds() for process in self._processes],
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
        """Wait until the group says that so many commands are decided: up to a second later."""

        async def decided() -> bool:
            for process in self._processes:
                process.check()
            offsets = await self._admin.list_consumer_group_offsets(
                self._name, partitions=self._partitions
            )
            return bool(sum(max(0, one.offset) for one in offsets.values()) >= commands)

        await wait_until(decided, timeout=_PATIENCE, what=f"{commands} commands are decided")


def _changes(users: int, seed: int) -> Iterator[_Record]:
    """Commands that change random users, for ever."""
    chance = random.Random(seed)
    for number in count():
        name = f"user-{chance.randrange(users)}"
        command = {
            "type": "UpdateUserProfile",
            "id": str(UUID(int=chance.getrandbits(128), version=4)),
            "aggregateId": name,
            "timestamp": "2026-01-02T03:04:05.678Z",
            "lastName": f"Number {number}",
        }
        yield name.encode(), orjson.dumps(command)


def _one_for_each(settings: Settings, changes: Iterator[_Record]) -> list[_Record]:
    """A command for each partition, which is decided when its state is there."""
    found: dict[int, _Record] = {}
    while len(found) < settings.partitions:
        record = next(changes)
        found.setdefault(partition_of(record[0], settings.partitions), record)
    return list(found.values())


async def _send_at_once(settings: Settings, topic: str, records: Sequence[_Record]) -> None:
    """Put records on a topic, where the workers see all of them at the same time."""
    producer = new_producer(settings, transactional_id=f"{settings.namespace}at-once")
    async with started(producer, settings), producer.transaction():
        sender = BulkSender(producer, topic, settings.partitions)
        for key, value in records:
            await sender.add(key, value)
        await sender.flush()


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
        "What a command costs when the state holds more aggregates, and what a second worker "
        "brings: changes of random aggregates on four partitions, which all become visible at "
        "once to workers that have restored their state and are idle. Counted as in deciding, "
        "after a warm-up; the CPU is that of all commands. Cores are CPU seconds per second: of "
        "each worker, and of Kafka and Elasticsearch, of which the latter has nothing to do."
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
            "One command worker as it is.",
            partial(scale, aggregates="aggregates", workers=1),
        ),
        Contestant(
            "cqrs-streams, many aggregates",
            "The same, with the larger number of aggregates.",
            partial(scale, aggregates="many aggregates", workers=1),
        ),
        Contestant(
            "cqrs-streams, two workers",
            "Two processes that share the four partitions, with the smaller number.",
            partial(scale, aggregates="aggregates", workers=2),
        ),
    ),
    targets=(
        Target(CPU_PER_COMMAND, most=1.1, of="cqrs-streams, many aggregates", to="cqrs-streams"),
    ),
)
