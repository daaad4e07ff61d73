"""How long a command takes, from being sent to its outcome being read, at a steady low rate."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from deploy.bench.backlog import backlog, new_deployment
from deploy.bench.benchmark import Benchmark, Contestant, Figures, Ground, percentile
from deploy.bench.deciding import COMMANDS_PER_SECOND, decide, our_worker
from deploy.bench.process import contestant
from deploy.faults.waiting import wait_until
from deploy.workers import ROLES, command_line
from streams.aggregate import Names
from streams.commands import partition_of
from streams.kafka import new_consumer, new_producer, started
from streams.settings import Settings

_LOAD = 0.2  # of the rate at which the worker decides a backlog
_PATIENCE = 60.0  # seconds


class _Commands:
    """Sends commands, one by one, and reads their outcomes; `_open` makes it."""

    def __init__(
        self,
        settings: Settings,
        names: Names,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        records: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._settings = settings
        self._topic = names.commands
        self._producer = producer
        self._consumer = consumer
        self._records = iter(records)
        # By partition, in the order of the commands, which is the order of the outcomes as well
        self._due: dict[int, list[float]] = defaultdict(list)
        self._read: dict[int, list[float]] = defaultdict(list)

    async def send(self, count: int, rate: float) -> list[float]:
        """Send so many, `rate` per second.

        Returns, once all are decided, the seconds that each has taken from when it was due: if the
        sender itself is late, that counts as well.
        """
        before = {partition: len(times) for partition, times in self._due.items()}
        begin = time.perf_counter()
        for number in range(count):
            due = begin + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            key, value = next(self._records)
            partition = partition_of(key, self._settings.partitions)
            self._due[partition].append(due)
            await self._producer.send(self._topic, value, key, partition=partition)
        what = f"{count} outcomes"
        await wait_until(self._all_are_read, timeout=_PATIENCE, what=what)
        return [
            read - due
            for partition, times in self._due.items()
            for due, read in list(zip(times, self._read[partition], strict=True))[
                before.get(partition, 0) :
            ]
        ]

    async def listen(self) -> None:
        """Note when outcomes come."""
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=1000)).items():
                self._read[tp.partition].extend([time.perf_counter()] * len(records))

    def _all_are_read(self) -> bool:
        return all(len(times) == len(self._read[number]) for number, times in self._due.items())


@asynccontextmanager
async def _open(
    settings: Settings, names: Names, records: Sequence[tuple[bytes, bytes]]
) -> AsyncIterator[_Commands]:
    async with (
        started(new_producer(settings), settings) as producer,
        started(new_consumer(settings), settings) as consumer,
    ):
        consumer.assign([TopicPartition(names.outcomes, n) for n in range(settings.partitions)])
        commands = _Commands(settings, names, producer, consumer, records)
        listening = asyncio.create_task(commands.listen())
        try:
            yield commands
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def our_latency(ground: Ground) -> Figures:
    """At 50 commands/s, at 20% of the rate that a backlog is decided at, and after idle time."""
    size = ground.size
    full = (await decide(ground, new_worker=our_worker))[COMMANDS_PER_SECOND]
    settings, names = await new_deployment(ground)
    log = ground.folder / f"{settings.namespace}commands.log"
    records = backlog(size["commands"], ground.seed).records
    async with _open(settings, names, records) as commands:
        with contestant(command_line(ROLES["commands"]), settings, log):
            await commands.send(size["settling"], 200)
            slow = await commands.send(size["at 50/s"], 50)
            loaded = await commands.send(int(full * _LOAD * size["seconds at 20%"]), full * _LOAD)
            await asyncio.sleep(size["idle seconds"])
            first = await commands.send(1, 1)
    return {
        "at 50/s, p50 ms": percentile(slow, 50) * 1000,
        "at 50/s, p99 ms": percentile(slow, 99) * 1000,
        "at 20% load, p50 ms": percentile(loaded, 50) * 1000,
        "at 20% load, p99 ms": percentile(loaded, 99) * 1000,
        "first after idle time, ms": first[0] * 1000,
        "commands/s at 20% load": full * _LOAD,
    }


LATENCY = Benchmark(
    name="latency",
    about=(
        "Milliseconds from when a command is due to be sent to reading its outcome as a "
        "read_committed consumer, both in one process beside the worker: at 50 commands/s, at 20% "
        "of the rate at which the same worker decides a backlog (measured in the same round), and "
        "for one command after idle time."
    ),
    sizes={
        "small": {
            "commands": 60_000,
            "warm-up": 20_000,
            "settling": 1000,
            "at 50/s": 500,
            "seconds at 20%": 5,
            "idle seconds": 5,
        },
        "full": {
            "commands": 150_000,
            "warm-up": 50_000,
            "settling": 1000,
            "at 50/s": 1500,
            "seconds at 20%": 15,
            "idle seconds": 60,
        },
    },
    contestants=(Contestant("cqrs-streams", "The command worker as it is.", our_latency),),
)
