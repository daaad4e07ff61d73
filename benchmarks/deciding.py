"""How many commands a worker decides per second, from a backlog on four partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson
from pydantic import SecretStr

from agents.users import COMMAND_WORKER
from benchmarks.peers.extra import QUIXSTREAMS
from benchmarks.peers.kafka_streams import java_command
from benchmarks.rig.backlog import (
    backlog,
    end_of_count,
    new_deployment,
    rate,
    read_committed,
    send,
    send_at_once,
)
from benchmarks.rig.group import ContestantGroup
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line, module_command
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.encryption.keys import new_master_key
from streams.kafka.clients import admin_client, cluster_id
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of
from streams.settings import Settings

COMMANDS_PER_SECOND = "commands/s"
CPU_PER_COMMAND = "CPU µs/command"
OUR_TWO = "cqrs-streams, two processes"
STREAMS_TWO = "Kafka Streams, two threads"
_TIMEOUT_S = 600.0


class Worker(NamedTuple):
    """How to start a contestant: its command line, and the consumer group that it commits to."""

    command: list[str]
    group: str
    processes: int = 1
    members: int = 1
    """Of the group, when all processes have joined it."""


class Sample(NamedTuple):
    """Number of commands decided so far, and CPU seconds that the process has used so far."""

    commands: int
    cpu_seconds: float


class Decided(NamedTuple):
    """The deployment in which everything was decided, and samples taken meanwhile."""

    settings: Settings
    names: TopicNames
    samples: Sequence[Sample]


NewWorker = Callable[[Settings, Path, str], Worker]
"""Called with the settings, a folder for the process's files, and the id of the cluster."""


def our_worker(settings: Settings, folder: Path, cluster: str) -> Worker:
    """Return how to start our command worker."""
    return Worker(command_line(ROLES["commands"]), settings.namespace + COMMAND_WORKER)


def our_two_workers(settings: Settings, folder: Path, cluster: str) -> Worker:
    """Return how to start two of our command workers."""
    return our_worker(settings, folder, cluster)._replace(processes=2, members=2)


def plain_loop(settings: Settings, folder: Path, cluster: str) -> Worker:
    """Return how to start the loop of `peers/plain_loop.py`."""
    command = module_command("benchmarks.peers.plain_loop")
    return Worker(command, f"{settings.namespace}plain-loop")


def faust_agent(settings: Settings, folder: Path, cluster: str) -> Worker:
    """Return how to start the agent of `peers/faust_agent.py`."""
    python, *faust = command_line("benchmarks.peers.faust_agent")
    datadir = "--datadir", str(folder / settings.namespace)  # default: in the working directory
    return Worker([python, *faust[:2], *datadir, *faust[2:]], f"{settings.namespace}faust-agent")


def kafka_streams(
    settings: Settings,
    folder: Path,
    cluster: str,
    *,
    threads: int = 1,
    compression: str | None = None,
) -> Worker:
    """Return how to start the topology of `peers/java/users/Main.java`.

    It compresses as the settings say, like our worker, unless `compression` says otherwise.
    """
    codec = compression or settings.compression
    where = settings.bootstrap_servers, settings.namespace, str(settings.partitions)
    state = str(folder / settings.namespace)
    command = java_command(folder, "users.Main", *where, cluster, state, str(threads), codec)
    return Worker(command, f"{settings.namespace}streams", members=threads)


def quixstreams(settings: Settings, folder: Path, cluster: str) -> Worker:
    """Return how to start the application of `peers/quix_deciding.py`."""
    command = module_command("benchmarks.peers.quix_deciding")
    state = folder / f"{settings.namespace}quixstreams"
    return Worker([*command, str(state)], f"{settings.namespace}quixstreams")


async def decide(
    context: BenchContext,
    *,
    new_worker: NewWorker,
    share: float = 1.0,
    same_outcomes: bool = False,
    encrypt: bool = False,
) -> Figures:
    """Let a new process decide a share of the commands, on new topics.

    Args:
        context: size and seed of the commands.
        new_worker: returns the process to start.
        share: of the commands that are decided.
        same_outcomes: whether it must reach the same outcomes as our worker.
        encrypt: whether it must encrypt personal data.

    Raises:
        Fatal: it ended, did not decide all in time, or did not write one outcome per command; or it
            had to reach the same outcomes and did not.
    """
    commands = backlog(context.size["commands"], context.seed)
    records = commands.records[: int(len(commands.records) * share)]
    decided = await let_decide(context, new_worker, records, encrypt=encrypt)
    outcomes = await read_committed(decided.settings, decided.names.outcomes)
    if len(outcomes) != len(records):
        raise Fatal(f"{len(records)} commands had {len(outcomes)} outcomes")
    if same_outcomes:
        statuses = Counter(orjson.loads(one.value)["status"] for one in outcomes)
        if statuses != commands.statuses:
            raise Fatal(f"the outcomes were {statuses} instead of {commands.statuses}")
    warm_up = int(context.size["warm-up"] * share)
    return {
        COMMANDS_PER_SECOND: rate(sorted(one.timestamp / 1000 for one in outcomes), warm_up),
        CPU_PER_COMMAND: cpu_per_command(decided.samples, warm_up) * 1e6,
    }


async def let_decide(
    context: BenchContext,
    new_worker: NewWorker,
    records: Sequence[tuple[bytes, bytes]],
    *,
    encrypt: bool = False,
) -> Decided:
    """Let new processes decide these records, on new topics; `encrypt` switches encryption on.

    The records are there before a process that is alone in its group. Several have joined it before
    all records become visible at the same time; otherwise the first one would begin alone.

    Raises:
        Fatal: one ended, or they did not decide all in time.
    """
    settings, names = await new_deployment(context)
    if encrypt:
        key = SecretStr(new_master_key())
        settings = settings.model_copy(update={"encrypt_personal_data": True, "master_key": key})
    worker = new_worker(settings, context.folder, await cluster_id(settings))
    if worker.members == 1:
        await send(settings, names.commands, records)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                contestant(
                    worker.command, settings, context.folder / f"{worker.group}-{number}.log"
                )
            )
            for number in range(worker.processes)
        ]
        async with admin_client(settings) as admin:
            partitions = partitions_of(settings, names.commands)
            group = ContestantGroup(
                admin, worker.group, partitions, processes, members=worker.members
            )
            if worker.members > 1:
                await wait_until(group.is_complete, timeout=_TIMEOUT_S, what="all have joined")
                await send_at_once(settings, names.commands, records)
            samples = await _wait_until_decided(group, records, settings.partitions)
    return Decided(settings, names, samples)


def cpu_per_command(samples: Sequence[Sample], warm_up: int) -> float:
    """Return the CPU seconds per command after the warm-up and before the last tenth.

    Both are in the middle of the work, when about as many commands are decided and not committed.
    At the end there are none: to the end, that CPU would be missing. If the time between the two
    was too short for the system's clock, return the CPU seconds of all commands.
    """
    last = samples[-1]
    begin, end = (
        next(one for one in samples if one.commands >= bound)
        for bound in (warm_up, end_of_count(last.commands))
    )
    if begin.cpu_seconds == end.cpu_seconds:
        begin, end = Sample(0, 0.0), last
    return (end.cpu_seconds - begin.cpu_seconds) / (end.commands - begin.commands)


async def _wait_until_decided(
    group: ContestantGroup, records: Sequence[tuple[bytes, bytes]], partitions: int
) -> list[Sample]:
    """Wait until the group has committed the ends of these records, the first of their topic.

    Reading the outcomes would compete with the worker.
    """
    ends = Counter(partition_of(key, partitions) for key, _ in records)
    samples = [Sample(0, 0.0)]

    async def decided() -> bool:
        # A transaction's marker, which some commit and some do not, is behind the records.
        found = await group.positions()
        commands = sum(min(ends[tp.partition], at) for tp, at in found.items())
        samples.append(Sample(commands, sum(group.cpu_seconds())))
        return commands == len(records)

    await wait_until(decided, timeout=_TIMEOUT_S, what="all is decided")
    return samples


DECIDING = Benchmark(
    name="deciding",
    about=(
        "Commands that a worker decides per second. The backlog has the same seeded commands for "
        "all contestants, on four partitions: registrations, changes, 5% to be rejected, 2% "
        "repeated, 0.5% malformed. Every process is new, and so are its topics. Two processes or "
        "threads share the two cores with the broker: that is what the machine can do. "
        "Counted are the outcomes that a read_committed reader sees, by the broker's timestamps, "
        "after a warm-up in which Java compiles its code, and before the last tenth, in which "
        "partitions end one by one. The CPU is that of the process with all its threads for the "
        "same commands, without the broker."
    ),
    sizes={
        "small": {"commands": 60_000, "warm-up": 20_000},
        "full": {"commands": 400_000, "warm-up": 80_000},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "Our command worker: validation, dedupe, events, outcomes with tokens, dead letters, "
            "the state's changelog and the position in one transaction per chunk.",
            partial(decide, new_worker=our_worker, same_outcomes=True),
        ),
        Contestant(
            "cqrs-streams, encrypting",
            "The same with CQRS_ENCRYPT_PERSONAL_DATA: a key for each user, which encrypts events "
            "and states. No other contestant does that.",
            partial(decide, new_worker=our_worker, same_outcomes=True, encrypt=True),
        ),
        Contestant(
            "Kafka Streams",
            "The same decisions in Java, checked to reach the same outcomes: validation, dedupe, "
            "events, outcomes with tokens, dead letters, changelog. exactly_once_v2, one stream "
            "thread, state in memory, a commit every 100 ms (its default), batches as large as "
            "ours and compressed in the same way.",
            partial(decide, new_worker=kafka_streams, same_outcomes=True),
        ),
        Contestant(
            "Kafka Streams, not compressing",
            "The same, but what it writes takes five times the bytes.",
            partial(
                decide,
                new_worker=partial(kafka_streams, compression="none"),
                same_outcomes=True,
            ),
        ),
        Contestant(
            OUR_TWO,
            "Two of our command workers, which share the four partitions.",
            partial(decide, new_worker=our_two_workers, same_outcomes=True),
        ),
        Contestant(
            STREAMS_TWO,
            "Kafka Streams with two stream threads in its process.",
            partial(decide, new_worker=partial(kafka_streams, threads=2), same_outcomes=True),
        ),
        Contestant(
            "plain aiokafka loop",
            "The limit in Python: aiokafka and orjson, decisions on a dict, events and outcomes in "
            "one transaction per chunk and partition. No validation beyond what the decision "
            "needs, no dedupe, no tokens, no changelog: after a crash its state is lost.",
            partial(decide, new_worker=plain_loop),
        ),
        Contestant(
            "ordinary Faust agent",
            "As Faust's documentation teaches: an agent, a table, `await topic.send`, "
            "processing_guarantee exactly_once (which loses and duplicates when it is killed); the "
            "decisions of the plain loop. It decides a tenth of the commands.",
            partial(decide, new_worker=faust_agent, share=0.1),
        ),
        *(
            Contestant(
                "Quix Streams",
                "As its documentation teaches: exactly-once, stateful processing (RocksDB and a "
                "changelog), a commit every 5 s (its default); the decisions of the plain loop. It "
                "decides half of the commands.",
                partial(decide, new_worker=quixstreams, share=0.5),
            )
            for _ in QUIXSTREAMS
        ),
    ),
    targets=(
        Target(COMMANDS_PER_SECOND, least=1.0, to="Kafka Streams"),
        Target(COMMANDS_PER_SECOND, least=1.1, of=OUR_TWO, to=STREAMS_TWO),
        Target(COMMANDS_PER_SECOND, least=0.7, to="plain aiokafka loop"),
        Target(COMMANDS_PER_SECOND, least=10, to="ordinary Faust agent"),
    ),
    needs=QUIXSTREAMS,
)
