"""How long a command takes: until its outcome is read, and until a search finds its effect."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count, islice

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.client import open_commands, open_queries
from benchmarks.deciding import COMMANDS_PER_SECOND, decide, our_worker
from benchmarks.rig.backlog import backlog, new_deployment
from benchmarks.rig.process import contestant
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures, percentile
from benchmarks.rig.target import Target
from deploy.supervisor import ROLES, command_line
from deploy.waiting import wait_until
from models.commands import RegisterUser
from models.errors import Fatal, NoSuchView, ViewBehind
from models.outcomes import Accepted
from models.queries import GetUserById, GetUsersByEmail
from streams.aggregate import TopicNames
from streams.buses import QueryBus
from streams.commands.bulk_sender import BulkSender
from streams.commands.client import KafkaCommandBus
from streams.concurrency import cancel
from streams.kafka.clients import new_consumer, new_producer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of
from streams.settings import Settings

_LOAD = 0.2  # of the rate at which the worker decides a backlog
_CLIENTS = 8
_TICK_S = 0.001  # commands that are due within one tick are sent together
_TIMEOUT_S = 60.0


class _Commands:
    """Sends commands when they are due, and reads their outcomes; `_open` creates it.

    It does as little as possible: it runs on the same two cores as the worker that it measures.
    """

    def __init__(
        self,
        settings: Settings,
        names: TopicNames,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        records: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._settings = settings
        self._sender = BulkSender(producer, names.commands, settings.partitions)
        self._consumer = consumer
        self._records = iter(records)
        # By partition, in the order of the commands, which is also the order of the outcomes
        self._due: dict[int, list[float]] = defaultdict(list)
        self._read: dict[int, list[float]] = defaultdict(list)

    async def send(self, count: int, rate: float) -> list[float]:
        """Send `count` commands, `rate` per second, and wait until all are decided.

        Returns:
            The seconds that each one took from when it was due. A delay of the sender counts, too.
        """
        before = {partition: len(times) for partition, times in self._due.items()}
        begin, sent = time.perf_counter(), 0
        while sent < count:
            await asyncio.sleep(max(_TICK_S, begin + sent / rate - time.perf_counter()))
            until = min(count, int((time.perf_counter() - begin) * rate) + 1)
            for number in range(sent, until):
                key, value = next(self._records)
                partition = partition_of(key, self._settings.partitions)
                self._due[partition].append(begin + number / rate)
                await self._sender.add(key, value)
            await self._sender.hand_over()
            sent = until
        what = f"{count} outcomes"
        await wait_until(self._all_are_read, timeout=_TIMEOUT_S, what=what)
        return [
            read - due
            for partition, times in self._due.items()
            for due, read in list(zip(times, self._read[partition], strict=True))[
                before.get(partition, 0) :
            ]
        ]

    async def listen(self) -> None:
        """Record when outcomes arrive, without end."""
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=1000)).items():
                self._read[tp.partition].extend([time.perf_counter()] * len(records))

    def _all_are_read(self) -> bool:
        return all(len(times) == len(self._read[number]) for number, times in self._due.items())


@asynccontextmanager
async def _open(
    settings: Settings, names: TopicNames, records: Sequence[tuple[bytes, bytes]]
) -> AsyncIterator[_Commands]:
    async with (
        started(new_producer(settings), settings) as producer,
        started(new_consumer(settings), settings) as consumer,
    ):
        consumer.assign(partitions_of(settings, names.outcomes))
        commands = _Commands(settings, names, producer, consumer, records)
        listening = asyncio.create_task(commands.listen())
        try:
            yield commands
        finally:
            await cancel(listening)


async def until_decided(context: BenchContext) -> Figures:
    """Measure at 5 and 50 commands/s, at 20% of a backlog's rate, and after idle time."""
    size = context.size
    full_rate = (await decide(context, new_worker=our_worker))[COMMANDS_PER_SECOND]
    settings, names = await new_deployment(context)
    log = context.folder / f"{settings.namespace}commands.log"
    many = int(full_rate * _LOAD * size["seconds at 20%"])
    needed = size["settling"] + size["at 5/s"] + size["at 50/s"] + many + 1
    records = backlog(needed, context.seed).records
    async with _open(settings, names, records) as commands:
        with contestant(command_line(ROLES["commands"]), settings, log):
            await commands.send(size["settling"], 200)
            seldom = await commands.send(size["at 5/s"], 5)
            slow = await commands.send(size["at 50/s"], 50)
            loaded = await commands.send(many, full_rate * _LOAD)
            await asyncio.sleep(size["idle seconds"])
            first = await commands.send(1, 1)
    return {
        **_percentiles("at 5/s", seldom),
        **_percentiles("at 50/s", slow),
        **_percentiles("at 20% load", loaded),
        "first after idle time, ms": first[0] * 1000,
        "commands/s at 20% load": full_rate * _LOAD,
    }


async def until_found(context: BenchContext) -> Figures:
    """Register users, and search for each one with the token of its outcome."""
    settings, _ = await new_deployment(context)
    decisions = context.folder / f"{settings.namespace}commands.log"
    views = context.folder / f"{settings.namespace}views.log"
    with (
        contestant(command_line(ROLES["commands"]), settings, decisions) as deciding,
        contestant(command_line(ROLES["views"]), settings, views) as projecting,
    ):
        async with open_commands(settings) as commands, open_queries(settings) as queries:

            async def is_served() -> bool:
                try:
                    return await queries.execute(GetUserById("nobody")) is None
                except NoSuchView:  # the view worker has not created it yet
                    return False

            await wait_until(is_served, timeout=_TIMEOUT_S, what="the view exists")
            finding = _Finding(commands, queries)
            await finding.run(_CLIENTS * 4, clients=_CLIENTS)  # warm up
            try:
                alone = await finding.run(context.size["found"], clients=1)
                together = await finding.run(context.size["found"], clients=_CLIENTS)
            except ViewBehind:
                for worker in (deciding, projecting):
                    worker.check()
                raise
    return {
        **_percentiles("found by a search", alone),
        **_percentiles(f"found by a search, {_CLIENTS} clients", together),
    }


class _Finding:
    """Clients that register users and then search for them."""

    def __init__(self, commands: KafkaCommandBus, queries: QueryBus) -> None:
        self._commands = commands
        self._queries = queries
        self._numbers = count()

    async def run(self, users: int, *, clients: int) -> list[float]:
        """Return for each of `users` new users the seconds from sending until it is found."""
        numbers = islice(self._numbers, users)
        times: list[float] = []
        await asyncio.gather(*(self._client(numbers, times) for _ in range(clients)))
        return times

    async def _client(self, numbers: Iterator[int], times: list[float]) -> None:
        for number in numbers:
            user = f"found-{number}-"
            begin = time.perf_counter()
            outcome = await self._commands.dispatch(
                RegisterUser(
                    aggregate_id=user,
                    email=f"{user}@example.org",
                    first_name="Fred",
                    last_name="Found",
                    registration_source="api",
                )
            )
            if not isinstance(outcome, Accepted):
                raise Fatal(f"registering {user} was {outcome.status}")
            page = await self._queries.execute(
                GetUsersByEmail(user), at_least=outcome.token, timeout=_TIMEOUT_S
            )
            times.append(time.perf_counter() - begin)
            if [one.id for one in page.items] != [user]:
                raise Fatal(f"{user} was not found")


def _percentiles(when: str, times: Sequence[float]) -> Figures:
    return {f"{when}, p{percent} ms": percentile(times, percent) * 1000 for percent in (50, 99)}


LATENCY = Benchmark(
    name="latency",
    about=(
        "How long a command takes to its outcome and to a search hit. Milliseconds from when a "
        "command is due to be sent until a read_committed consumer has read its outcome; both are "
        "in one process beside the worker. At 5 and at 50 commands/s, at 20% of the rate at which "
        "the same worker decides a backlog (measured in the same round), and for one command after "
        "idle time. Also from sending a command until a search with the token of its outcome has "
        "found the user."
    ),
    sizes={
        "small": {
            "commands": 60_000,
            "warm-up": 20_000,
            "settling": 1000,
            "at 5/s": 50,
            "at 50/s": 500,
            "seconds at 20%": 5,
            "idle seconds": 5,
            "found": 100,
        },
        "full": {
            "commands": 150_000,
            "warm-up": 50_000,
            "settling": 1000,
            "at 5/s": 100,
            "at 50/s": 1500,
            "seconds at 20%": 15,
            "idle seconds": 60,
            "found": 400,
        },
    },
    contestants=(
        Contestant("cqrs-streams", "Our command worker.", until_decided),
        Contestant(
            "cqrs-streams, until found",
            "A command worker and a view worker, and clients that register one user after the "
            "other and search for each: one client, then eight in parallel.",
            until_found,
        ),
    ),
    targets=(
        Target("at 20% load, p50 ms", most=12),
        Target("at 20% load, p99 ms", most=40),
        Target("at 5/s, p50 ms", most=12),
        Target("at 5/s, p99 ms", most=40),
        Target("first after idle time, ms", most=40),
        Target("found by a search, p50 ms", most=30, of="cqrs-streams, until found"),
        Target(
            f"found by a search, {_CLIENTS} clients, p50 ms",
            most=60,
            of="cqrs-streams, until found",
        ),
        Target("found by a search, p99 ms", most=400, of="cqrs-streams, until found"),
    ),
)
