"""How much memory a command worker takes: for each user in its state, and over time."""

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
from benchmarks.recovery import measure_start, open_new_outcomes
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

_TYPICAL_WINDOW = 2  # commands of a user
_LOAD = 0.5  # of the rate at which the worker decides a backlog
_TICK_S = 0.02
_TIMEOUT_S = 600.0
_SEGMENT_BYTES = 64 << 20
PER_USER = "bytes/user, full window"
_MIB = 1 << 20


async def our_memory(context: BenchContext, *, local_store: bool = False) -> Figures:
    """Measure per user with a full and with a typical dedupe window, then over time under load."""
    state_dir = context.folder / "state" if local_store else None
    users = context.size["users"]
    try:
        none = await _with_users(context, 0, DEDUPE_WINDOW, state_dir)
        full = await _with_users(context, users, DEDUPE_WINDOW, state_dir)
        typical = await _with_users(context, users, _TYPICAL_WINDOW, state_dir)
        rate = _LOAD * (await decide(context, new_worker=our_worker))[COMMANDS_PER_SECOND]
        samples = await _under_load(context, rate, state_dir)
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
    context: BenchContext, users: int, window: int, state_dir: Path | None
) -> int:
    """Return the bytes of a worker that restored `users` users, each with `window` commands."""
    settings, names = await new_deployment(context)
    settings = settings.model_copy(update={"state_dir": state_dir})
    if users:
        values = states(window, context.seed)
        await write_changelog(settings, names, aggregates=users, records=users, values=values)
    command = command_line(ROLES["commands"])
    return (await measure_start(context, settings, names, command)).memory


async def _under_load(context: BenchContext, rate: float, state_dir: Path | None) -> Sequence[int]:
    """Return samples of the memory, one per second, while users with full windows change."""
    # Old records of these topics are not read again and would fill the disk.
    small_segments = {"segment.bytes": str(_SEGMENT_BYTES)}
    short = {**small_segments, "retention.bytes": str(4 * _SEGMENT_BYTES)}
    settings, names = await new_deployment(
        context, commands=short, outcomes=short, changelog=small_segments
    )
    settings = settings.model_copy(update={"state_dir": state_dir})
    users, seconds = context.size["users at 50%"], context.size["seconds at 50%"]
    changing = _changes(users)
    log = context.folder / f"{settings.namespace}commands.log"
    async with (
        open_new_outcomes(settings, names) as outcomes,
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
                await counting.count()
                if passed >= len(samples):
                    process.check()
                    samples.append(process.memory())
                await asyncio.sleep(_TICK_S)
            await sender.flush()
            await counting.reach(len(first) + sent)
            samples.append(process.memory())
    return samples


class _Outcomes:
    """Counts outcomes as they arrive."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._count = 0

    async def count(self) -> int:
        """Count the outcomes that have arrived; return the number of all so far."""
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            self._count += len(records)
        return self._count

    async def reach(self, outcomes: int) -> None:
        """Wait until the number of all outcomes is `outcomes`."""

        async def reached() -> bool:
            return await self.count() >= outcomes

        await wait_until(reached, timeout=_TIMEOUT_S, what=f"{outcomes} outcomes")


def _changes(users: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of users who register, and then change their names in turn, without end."""
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
        "Resident memory of a command worker, per user and over time. Per user: how much more "
        "memory a worker takes that has restored many users than one without users, if all of them "
        "have a full dedupe window (16 commands), or one of two commands. Over time: at half of "
        "the rate at which it decides a backlog, while users with full windows change; in the "
        "first tenth of the time, and in the last."
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
        Contestant("cqrs-streams", "Our command worker with its state in memory.", our_memory),
        Contestant(
            "cqrs-streams, local store",
            "The same with CQRS_STATE_DIR: state in RocksDB, which may take 128 MiB of memory.",
            partial(our_memory, local_store=True),
        ),
    ),
    targets=(Target(PER_USER, most=1229),),
)
