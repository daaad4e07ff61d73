"""How many commands per second one worker process decides, with a backlog on four partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson
from aiokafka.errors import GroupCoordinatorNotAvailableError
from pydantic import SecretStr

from agents.users import COMMAND_WORKER
from benchmarks.peers.extra import QUIXSTREAMS
from benchmarks.peers.kafka_streams import java_command
from benchmarks.rig.backlog import backlog, committed, new_deployment, rate, send
from benchmarks.rig.process import RunningContestant, contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line, module_command
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.encryption.keys import new_master_key
from streams.kafka.clients import admin_client, cluster_id
from streams.kafka.log_reader import open_logs
from streams.kafka.topics import partitions_of
from streams.settings import Settings

COMMANDS_PER_SECOND = "commands/s"
CPU_PER_COMMAND = "CPU µs/command"
_PATIENCE = 600.0  # seconds


class Worker(NamedTuple):
    """A contestant's process: its command line, and the consumer group that it commits to."""

    command: list[str]
    group: str


class Sample(NamedTuple):
    """How many commands were decided, and what the process had used by then."""

    commands: int
    cpu_seconds: float


class Decided(NamedTuple):
    """Where all was decided, and how that went."""

    settings: Settings
    names: TopicNames
    samples: Sequence[Sample]


NewWorker = Callable[[Settings, Path, str], Worker]
"""Settings, a folder for what it keeps, the id of the cluster."""


def our_worker(settings: Settings, folder: Path, cluster: str) -> Worker:
    """The command worker as it is."""
    return Worker(command_line(ROLES["commands"]), settings.namespace + COMMAND_WORKER)


def plain_loop(settings: Settings, folder: Path, cluster: str) -> Worker:
    """The loop of `peers/plain_loop.py`."""
    command = module_command("benchmarks.peers.plain_loop")
    return Worker(command, f"{settings.namespace}plain-loop")


def faust_agent(settings: Settings, folder: Path, cluster: str) -> Worker:
    """The agent of `peers/faust_agent.py`."""
    python, *faust = command_line("benchmarks.peers.faust_agent")
    where = "--datadir", str(folder / settings.namespace)  # or it makes one where we are
    return Worker([python, *faust[:2], *where, *faust[2:]], f"{settings.namespace}faust-agent")


def kafka_streams(settings: Settings, folder: Path, cluster: str) -> Worker:
    """The topology of `java/users/Main.java`."""
    where = settings.bootstrap_servers, settings.namespace, str(settings.partitions)
    command = java_command(folder, "users.Main", *where, cluster, str(folder / settings.namespace))
    return Worker(command, f"{settings.namespace}streams")


def quixstreams(settings: Settings, folder: Path, cluster: str) -> Worker:
    """The application of `peers/quix_deciding.py`."""
    command = module_command("benchmarks.peers.quix_deciding")
    state = folder / f"{settings.namespace}quixstreams"
    return Worker([*command, str(state)], f"{settings.namespace}quixstreams")


async def decide(
    ground: BenchContext,
    *,
    new_worker: NewWorker,
    share: float = 1.0,
    same_answers: bool = False,
    encrypt: bool = False,
) -> Figures:
    """Let a new process decide a share of the commands, on new topics.

    Raises:
        Fatal: it ended, did not get through, or did not answer each command once; or, where it has
            to give the same answers as we do, it gave others.
    """
    commands = backlog(ground.size["commands"], ground.seed)
    records = commands.records[: int(len(commands.records) * share)]
    decided = await let_decide(ground, new_worker, records, encrypt=encrypt)
    outcomes = await committed(decided.settings, decided.names.outcomes)
    if len(outcomes) != len(records):
        raise Fatal(f"{len(records)} commands had {len(outcomes)} outcomes")
    if same_answers:
        given = Counter(orjson.loads(one.value)["status"] for one in outcomes)
        if given != commands.statuses:
            raise Fatal(f"the answers were {given} instead of {commands.statuses}")
    warm_up = int(ground.size["warm-up"] * share)
    return {
        COMMANDS_PER_SECOND: rate(sorted(one.timestamp / 1000 for one in outcomes), warm_up),
        CPU_PER_COMMAND: cpu_per_command(decided.samples, warm_up) * 1e6,
    }


async def let_decide(
    ground: BenchContext,
    new_worker: NewWorker,
    records: Sequence[tuple[bytes, bytes]],
    *,
    encrypt: bool = False,
) -> Decided:
    """Let a new process decide these commands, on new topics, and encrypt what is personal or not.

    Raises:
        Fatal: it ended, or did not get through.
    """
    settings, names = await new_deployment(ground)
    if encrypt:
        key = SecretStr(new_master_key())
        settings = settings.model_copy(update={"encrypt_personal_data": True, "master_key": key})
    await send(settings, names.commands, records)
    worker = new_worker(settings, ground.folder, await cluster_id(settings))
    log = ground.folder / f"{worker.group}.log"
    with contestant(worker.command, settings, log) as process:
        samples = await _until_decided(settings, names, worker.group, process)
    return Decided(settings, names, samples)


def cpu_per_command(samples: Sequence[Sample], warm_up: int) -> float:
    """Seconds of CPU, after so many commands; of all commands if that went too fast to see."""
    begin, end = next(one for one in samples if one.commands >= warm_up), samples[-1]
    if begin.cpu_seconds == end.cpu_seconds:
        begin = Sample(0, 0.0)
    return (end.cpu_seconds - begin.cpu_seconds) / (end.commands - begin.commands)


async def _until_decided(
    settings: Settings, names: TopicNames, group: str, process: RunningContestant
) -> list[Sample]:
    """Wait until the group has committed the ends of the command topic.

    That costs the broker next to nothing, where reading the outcomes would compete with the worker.
    """
    partitions = partitions_of(settings, names.commands)
    async with open_logs(settings, partitions) as logs, admin_client(settings) as admin:
        ends = sum((await logs.end_offsets(partitions)).values())

        samples = [Sample(0, 0.0)]

        async def decided() -> bool:
            process.check()
            with suppress(GroupCoordinatorNotAvailableError):  # the group is new
                found = await admin.list_consumer_group_offsets(group, partitions=partitions)
                commands = sum(max(0, one.offset) for one in found.values())
                samples.append(Sample(commands, process.cpu_seconds()))
            return samples[-1].commands >= ends

        await wait_until(decided, timeout=_PATIENCE, what=f"{group} has decided all")
    return samples


DECIDING = Benchmark(
    name="deciding",
    about=(
        "Commands decided per second by one worker process, from a backlog of the same seeded "
        "commands on four partitions: registrations, changes, 5% to be rejected, 2% repeated, 0.5% "
        "no commands. Each process is new, on new topics; counted are the outcomes that a "
        "read_committed reader sees, by the times at which the broker wrote them, after the first "
        "ones (warm-up), in which Java compiles itself. The CPU is that of the process, all its "
        "threads, for the same commands; the broker's is not in it."
    ),
    sizes={
        "small": {"commands": 60_000, "warm-up": 20_000},
        "full": {"commands": 200_000, "warm-up": 80_000},
    },
    contestants=(
        Contestant(
            "cqrs-streams",
            "The command worker as it is: validation, dedupe, events, outcomes with tokens, dead "
            "letters, the state's changelog and the position in one transaction per chunk.",
            partial(decide, new_worker=our_worker, same_answers=True),
        ),
        Contestant(
            "cqrs-streams, encrypting",
            "The same with CQRS_ENCRYPT_PERSONAL_DATA: a key for each user, events and states "
            "encrypted with it. None of the others does that.",
            partial(decide, new_worker=our_worker, same_answers=True, encrypt=True),
        ),
        Contestant(
            "Kafka Streams",
            "The same decisions in Java, checked to answer the same: validation, dedupe, events, "
            "outcomes with tokens, dead letters, changelog. exactly_once_v2, one stream thread, "
            "state in memory, a commit every 100 ms (its default), batches as large as ours.",
            partial(decide, new_worker=kafka_streams, same_answers=True),
        ),
        Contestant(
            "plain aiokafka loop",
            "The limit in Python: aiokafka and orjson, decisions on a dict, events and outcomes in "
            "one transaction per chunk and partition. No validation beyond what deciding needs, no "
            "dedupe, no tokens, no changelog: after a crash its state is lost.",
            partial(decide, new_worker=plain_loop),
        ),
        Contestant(
            "ordinary Faust agent",
            "As Faust's documentation teaches: an agent, a table, `await topic.send`, "
            "processing_guarantee exactly_once (which loses and duplicates when killed); the "
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
        Target(COMMANDS_PER_SECOND, least=0.7, to="plain aiokafka loop"),
        Target(COMMANDS_PER_SECOND, least=10, to="ordinary Faust agent"),
    ),
    needs=QUIXSTREAMS,
)
