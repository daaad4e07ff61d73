"""How long a command worker takes from its start until it decides, with a long history."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from shutil import rmtree
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from benchmarks.rig.backlog import new_deployment, send
from benchmarks.rig.changelog_history import states, write_changelog
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import NotInTime, wait_until
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
_WINDOW = 3  # remembered commands in each record
_TIMEOUT_S = 600.0

# Faust's recovery does not end now and then (its issues 596 and 597). Then it is started again.
_FAUST_TIMEOUT_S = 30.0
_FAUST_MIN_RECORDS_PER_S = 1000
_FAUST_ATTEMPTS = 5


class MeasuredStart(NamedTuple):
    """Figures of a process when it had decided a command of each partition."""

    seconds: float  # since it was started
    memory: int  # bytes


async def our_recovery(context: BenchContext) -> Figures:
    """Measure with state in memory, then with an empty local store, then with the filled one."""
    settings, names = await new_deployment(context)
    records, aggregates = context.size["records"], context.size["aggregates"]
    values = states(_WINDOW, context.seed, size=_VALUE_BYTES)
    await write_changelog(settings, names, aggregates=aggregates, records=records, values=values)
    command = command_line(ROLES["commands"])
    stored = settings.model_copy(update={"state_dir": context.folder / "state"})
    try:
        memory = await measure_start(context, settings, names, command)
        wiped = await measure_start(context, stored, names, command)
        intact = await measure_start(context, stored, names, command)
    finally:
        rmtree(context.folder / "state", ignore_errors=True)
    return {
        FROM_CHANGELOG: memory.seconds,
        STORE_WIPED: wiped.seconds,
        FROM_STORE: intact.seconds,
        RESTORED: records / memory.seconds,
    }


async def faust_recovery(context: BenchContext) -> Figures:
    """Measure the table of `peers/faust_table.py`, with a tenth of the records."""
    settings, names = await new_deployment(context)
    records, aggregates = context.size["records"] // 10, context.size["aggregates"] // 10
    values = states(_WINDOW, context.seed, size=_VALUE_BYTES)
    changelog = f"{settings.namespace}faust-table-users-changelog"
    [spec] = [one for one in topic_specs(settings, names) if one.name == names.changelog]
    await create_topics(settings, [replace(spec, name=changelog)])
    history = [(b"user-%d" % (n % aggregates), values[n % len(values)]) for n in range(records)]
    await send(settings, changelog, history)
    command = command_line("benchmarks.peers.faust_table")
    timeout = _FAUST_TIMEOUT_S + records / _FAUST_MIN_RECORDS_PER_S
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(NotInTime),
        stop=stop_after_attempt(_FAUST_ATTEMPTS),
        reraise=True,
    ):
        with attempt:
            start = await measure_start(
                context, settings, names, command, users=aggregates, timeout=timeout
            )
    return {RESTORED: records / start.seconds}


async def measure_start(
    context: BenchContext,
    settings: Settings,
    names: TopicNames,
    command: Sequence[str],
    *,
    users: int | None = None,
    timeout: float = _TIMEOUT_S,
) -> MeasuredStart:
    """Start a process, and measure until it has decided a command of each partition.

    Args:
        context: has the folder for its log.
        settings: of the deployment.
        names: of its topics.
        command: command line of the process.
        users: for a process whose outcomes are the number of users in its state: the least number.
        timeout: seconds until it has to have decided them.

    Raises:
        Fatal: it ended, did not decide in time, or restored fewer users.
    """
    async with open_new_outcomes(settings, names) as outcomes:
        commands = _one_for_each(settings)
        await send(settings, names.commands, [*commands.values()])
        begin = time.perf_counter()
        log = context.folder / f"{settings.namespace}recovering.log"
        with contestant(command, settings, log) as process:
            last: dict[int, bytes] = {}  # value of the last outcome, by partition

            async def decided() -> bool:
                process.check()
                for tp, records in (await outcomes.getmany(timeout_ms=20)).items():
                    last[tp.partition] = records[-1].value
                return last.keys() == commands.keys()

            await wait_until(decided, timeout=timeout, what="every partition decides")
            measured = MeasuredStart(time.perf_counter() - begin, process.memory())
    if users is not None and any(int(restored) < users for restored in last.values()):
        raise Fatal(f"not all of {users} users were restored: {last}")
    return measured


def _one_for_each(settings: Settings) -> Mapping[int, tuple[bytes, bytes]]:
    """Return for each partition the key and value of a command for one of its users."""
    found: dict[int, tuple[bytes, bytes]] = {}
    number = 0
    while len(found) < settings.partitions:
        name = f"user-{number}"
        value = b'{"type":"UpdateUserProfile","aggregateId":"%b","firstName":"Ann"}' % name.encode()
        found.setdefault(partition_of(name.encode(), settings.partitions), (name.encode(), value))
        number += 1
    return found


@asynccontextmanager
async def open_new_outcomes(
    settings: Settings, names: TopicNames
) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer of the outcomes that are written from now on."""
    partitions = partitions_of(settings, names.outcomes)
    async with started(new_consumer(settings, fetch_max_wait_ms=50), settings) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        yield consumer


RECOVERY = Benchmark(
    name="recovery",
    about=(
        "How long a worker takes from its start until it decides. Seconds from starting the "
        "process until there is an outcome from each of its four partitions, whose changelogs it "
        "has to read first: records of 300 bytes, in transactions of 2,000, three of each user. "
        "With the state in memory; with an empty local store (CQRS_STATE_DIR), which it fills; and "
        "with the store that the process before has left. Starting Python and joining the group "
        "are included."
    ),
    sizes={
        "small": {"records": 60_000, "aggregates": 20_000},
        "full": {"records": 3_000_000, "aggregates": 1_000_000},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "Our command worker, which restores its four partitions at the same time.",
            our_recovery,
        ),
        Contestant(
            "ordinary Faust table",
            "Faust's own recovery of a table of bytes from a changelog with a tenth of the same "
            "records, and an agent that replies. Started again if its recovery does not end.",
            faust_recovery,
        ),
    ),
    targets=(Target(FROM_CHANGELOG, most=30), Target(FROM_STORE, most=3)),
)
