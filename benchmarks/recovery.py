"""How long a command worker takes from being started to deciding, with a long history behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from shutil import rmtree
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer

from benchmarks.rig.backlog import new_deployment, send
from benchmarks.rig.changelog_history import states, write_changelog
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.kafka.clients import new_consumer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import create_topics, partitions_of, topic_specs
from streams.settings import Settings

RESTORED = "records/s, from start to deciding"
FROM_CHANGELOG = "s to deciding, state in memory"
FROM_STORE = "s to deciding, with the local store"
STORE_WIPED = "s to deciding, local store wiped"
_VALUE_BYTES = 300
_ANSWERS = 3  # to the last commands, in each record
_PATIENCE = 600.0  # seconds


class Decides(NamedTuple):
    """When a process has decided a command of each partition."""

    seconds: float  # after it was started
    memory: int  # bytes


async def our_recovery(ground: BenchContext) -> Figures:
    """In memory, then into an empty local store, then with that."""
    settings, names = await new_deployment(ground)
    records, aggregates = ground.size["records"], ground.size["aggregates"]
    values = states(_ANSWERS, ground.seed, size=_VALUE_BYTES)
    await write_changelog(settings, names, aggregates=aggregates, records=records, values=values)
    command = command_line(ROLES["commands"])
    stored = settings.model_copy(update={"state_dir": ground.folder / "state"})
    try:
        memory = await until_deciding(ground, settings, names, command)
        wiped = await until_deciding(ground, stored, names, command)
        intact = await until_deciding(ground, stored, names, command)
    finally:
        rmtree(ground.folder / "state", ignore_errors=True)
    return {
        FROM_CHANGELOG: memory.seconds,
        STORE_WIPED: wiped.seconds,
        FROM_STORE: intact.seconds,
        RESTORED: records / memory.seconds,
    }


async def faust_recovery(ground: BenchContext) -> Figures:
    """The table of `peers/faust_table.py`, with a tenth of the records."""
    settings, names = await new_deployment(ground)
    records, aggregates = ground.size["records"] // 10, ground.size["aggregates"] // 10
    values = states(_ANSWERS, ground.seed, size=_VALUE_BYTES)
    theirs = f"{settings.namespace}faust-table-users-changelog"
    [spec] = [one for one in topic_specs(settings, names) if one.name == names.changelog]
    await create_topics(settings, [replace(spec, name=theirs)])
    history = [(b"user-%d" % (n % aggregates), values[n % len(values)]) for n in range(records)]
    await send(settings, theirs, history)
    command = command_line("benchmarks.peers.faust_table")
    decides = await until_deciding(ground, settings, names, command, users=aggregates)
    return {RESTORED: records / decides.seconds}


async def until_deciding(
    ground: BenchContext,
    settings: Settings,
    names: TopicNames,
    command: Sequence[str],
    *,
    users: int | None = None,
) -> Decides:
    """Start a process, and wait until each partition has decided a command.

    `users` is how many it has to answer that it knows, if that is what it answers.

    Raises:
        Fatal: it ended, or did not restore all of them.
    """
    async with new_outcomes(settings, names) as outcomes:
        commands = _one_for_each(settings)
        await send(settings, names.commands, [*commands.values()])
        begin = time.perf_counter()
        log = ground.folder / f"{settings.namespace}recovering.log"
        with contestant(command, settings, log) as process:
            answers: dict[int, bytes] = {}

            async def decided() -> bool:
                process.check()
                for tp, records in (await outcomes.getmany(timeout_ms=20)).items():
                    answers[tp.partition] = records[-1].value
                return answers.keys() == commands.keys()

            await wait_until(decided, timeout=_PATIENCE, what="every partition decides")
            found = Decides(time.perf_counter() - begin, process.memory())
    if users is not None and any(int(answer) < users for answer in answers.values()):
        raise Fatal(f"of {users} users it knows {answers}")
    return found


def _one_for_each(settings: Settings) -> Mapping[int, tuple[bytes, bytes]]:
    """A command for a user of each partition."""
    found: dict[int, tuple[bytes, bytes]] = {}
    number = 0
    while len(found) < settings.partitions:
        name = f"user-{number}"
        value = b'{"type":"UpdateUserProfile","aggregateId":"%b","firstName":"Ann"}' % name.encode()
        found.setdefault(partition_of(name.encode(), settings.partitions), (name.encode(), value))
        number += 1
    return found


@asynccontextmanager
async def new_outcomes(settings: Settings, names: TopicNames) -> AsyncIterator[AIOKafkaConsumer]:
    """A reader of what is decided from now on."""
    partitions = partitions_of(settings, names.outcomes)
    async with started(new_consumer(settings, fetch_max_wait_ms=50), settings) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        yield consumer


RECOVERY = Benchmark(
    name="recovery",
    about=(
        "From starting a worker process to an outcome from each of its four partitions, whose "
        "changelogs it has to read first: records of 300 bytes, in transactions of 2,000, three of "
        "each user. With the state in memory; with an empty local store (CQRS_STATE_DIR), which is "
        "filled on the way; and with the store that the process before has left. Starting Python "
        "and joining the group are in it."
    ),
    sizes={
        "small": {"records": 60_000, "aggregates": 20_000},
        "full": {"records": 3_000_000, "aggregates": 1_000_000},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "The command worker as it is, restoring its four partitions at once.",
            our_recovery,
        ),
        Contestant(
            "ordinary Faust table",
            "Faust's own recovery of a table of bytes from a changelog of the same records, a "
            "tenth of them, and an agent that answers.",
            faust_recovery,
        ),
    ),
    targets=(Target(FROM_CHANGELOG, most=30), Target(FROM_STORE, most=3)),
)
