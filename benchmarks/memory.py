"""How much memory a command worker takes: for each user it knows, and as time goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from shutil import rmtree
from statistics import median

from aiokafka import AIOKafkaConsumer

from benchmarks.deciding import COMMANDS_PER_SECOND, decide, our_worker
from benchmarks.recovery import new_outcomes, until_deciding
from benchmarks.rig.backlog import new_deployment
from benchmarks.rig.changelog_history import states, write_changelog
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from streams.commands.bulk_sender import BulkSender
from streams.kafka.clients import new_producer, started
from streams.state.snapshot import DEDUPE_WINDOW

_TYPICAL = 2  # commands that a user has had
_LOAD = 0.5  # of the rate at which the worker decides a backlog
_TICK = 0.02  # seconds
_PATIENCE = 600.0  # seconds
_SEGMENT = 64 << 20
PER_USER = "bytes/user, full window"
_MIB = 1 << 20


async def our_memory(ground: BenchContext, *, local_store: bool = False) -> Figures:
    """For a user with a full and with a typical dedupe window, and for some time under load."""
    state_dir = ground.folder / "state" if local_store else None
    users = ground.size["users"]
    try:
        none = await _with_users(ground, 0, DEDUPE_WINDOW, state_dir)
        full = await _with_users(ground, users, DEDUPE_WINDOW, state_dir)
        typical = await _with_users(ground, users, _TYPICAL, state_dir)
        rate = _LOAD * (await decide(ground, new_worker=our_worker))[COMMANDS_PER_SECOND]
        samples = await _under_load(ground, rate, state_dir)
    finally:
        if state_dir is not None:
            rmtree(state_dir, ignore_errors=True)
    tenth = max(1, len(samples) // 10)
    return {
        PER_USER: (full - none) / users,
        "bytes/user, typical window": (typical - none) / users,
        "MiB at first, at 50% load": median(samples[:tenth]) / _MIB,
        "MiB at last, at 50% load": median(samples[-tenth:]) / _MIB,
        "commands/s at 50% load": rate,
    }


async def _with_users(
    ground: BenchContext, users: int, answers: int, state_dir: Path | None
) -> int:
    """The memory of a worker that has restored so many users and decided a command."""
    settings, names = await new_deployment(ground)
    settings = settings.model_copy(update={"state_dir": state_dir})
    if users:
        values = states(answers, ground.seed)
        await write_changelog(settings, names, aggregates=users, records=users, values=values)
    command = command_line(ROLES["commands"])
    return (await until_deciding(ground, settings, names, command)).memory


async def _under_load(ground: BenchContext, rate: float, state_dir: Path | None) -> Sequence[int]:
    """Samples of the memory, one per second, while users change who all have full windows."""
    # All but the events, which nobody reads again, would fill the disk.
    frugal = {"segment.bytes": str(_SEGMENT)}
    short = {**frugal, "retention.bytes": str(4 * _SEGMENT)}
    settings, names = await new_deployment(ground, commands=short, outcomes=short, changelog=frugal)
    settings = settings.model_copy(update={"state_dir": state_dir})
    users, seconds = ground.size["users at 50%"], ground.size["seconds at 50%"]
    changing = _changes(users)
    log = ground.folder / f"{settings.namespace}commands.log"
    async with (
        new_outcomes(settings, names) as outcomes,
        started(new_producer(settings), settings) as producer,
    ):
        sender = BulkSender(producer, names.commands, settings.partitions)
        counting = _Outcomes(outcomes)
        with contestant(command_line(ROLES["commands"]), settings, log) as process:
            first = [*islice(changing, users * (DEDUPE_WINDOW + 1))]
            for record in first:
                await sender.add(*record)
            await sender.flush()
            await counting.reach(len(first))
            samples, sent, begin = list[int](), 0, time.perf_counter()
            while (passed := time.perf_counter() - begin) < seconds:
                due = int(passed * rate)
                for record in islice(changing, due - sent):
                    await sender.add(*record)
                await sender.hand_over()
                sent = due
                await counting.look()
                if passed >= len(samples):
                    process.check()
                    samples.append(process.memory())
                await asyncio.sleep(_TICK)
            await sender.flush()
            await counting.reach(len(first) + sent)
            samples.append(process.memory())
    return samples


class _Outcomes:
    """Counts outcomes as they come."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._count = 0

    async def look(self) -> int:
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            self._count += len(records)
        return self._count

    async def reach(self, outcomes: int) -> None:
        async def reached() -> bool:
            return await self.look() >= outcomes

        await wait_until(reached, timeout=_PATIENCE, what=f"{outcomes} outcomes")


def _changes(users: int) -> Iterator[tuple[bytes, bytes]]:
    """Users register, and then change their names for ever, in turn."""
    for number in range(users):
        yield (
            b"user-%d" % number,
            b'{"type":"RegisterUser","aggregateId":"user-%d","email":"user-%d@example.org",'
            b'"firstName":"Anna","lastName":"Muster","registrationSource":"web"}'
            % (number, number),
        )
    for change in count():
        for number in range(users):
            yield (
                b"user-%d" % number,
                b'{"type":"UpdateUserProfile","aggregateId":"user-%d","firstName":"Anna %d"}'
                % (number, change),
            )


MEMORY = Benchmark(
    name="memory",
    about=(
        "Resident memory of a command worker. For each user: how much more one takes that has "
        "restored many users than one that knows none; all of them with a full dedupe window (16 "
        "commands), or with that of two commands. And at half of the rate at which it decides a "
        "backlog, when users with full windows change all the while: in the first tenth of the "
        "time, and in the last."
    ),
    sizes={
        "small": {
            "users": 50_000,
            "commands": 60_000,
            "warm-up": 20_000,
            "users at 50%": 1000,
            "seconds at 50%": 20,
        },
        "full": {
            "users": 1_000_000,
            "commands": 200_000,
            "warm-up": 80_000,
            "users at 50%": 10_000,
            "seconds at 50%": 1200,
        },
    },
    contestants=(
        Contestant("cqrs-streams", "The command worker, its state in memory.", our_memory),
        Contestant(
            "cqrs-streams, local store",
            "With CQRS_STATE_DIR: RocksDB, which may take 128 MiB.",
            partial(our_memory, local_store=True),
        ),
    ),
    targets=(Target(PER_USER, most=1229),),
)
