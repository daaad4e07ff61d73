"""Commands that keep coming while something breaks, and what readers see of their outcomes."""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.user_audit import verify_users
from deploy.ephemeral import Deployment
from deploy.waiting import NotInTime, wait_until
from streams.audit.report import Report
from streams.kafka.clients import new_consumer, new_producer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of

_TICK = 0.01  # seconds between two looks at what is due
_SILENCE = 20.0  # seconds without an outcome after which none is to come: longer than any session
_PATIENCE = 120.0  # seconds that the workers get, unless a scenario says otherwise


class Record(NamedTuple):
    """What is sent, to the partition of its key unless another one is given."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None


def record_of(command: Mapping[str, Any]) -> Record:
    """A wire command as a record."""
    return Record(command["aggregateId"].encode(), json.dumps(command).encode())


def records_of(commands: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """Wire commands as records."""
    return map(record_of, commands)


class Traffic:
    """Sends records in their order and listens to the outcomes; `open_traffic` makes it.

    `rate` are records per second that go out by themselves; `burst` adds more at once. Times are
    those of `time.monotonic`, when a `read_committed` reader saw an outcome.
    """

    def __init__(
        self,
        deployed: Deployment,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        records: Iterator[Record],
        rate: float,
    ) -> None:
        self._topic = deployed.names.commands
        self._partitions = deployed.settings.partitions
        self._producer = producer
        self._consumer = consumer
        self._records = records
        self._rate = rate
        self._due = 0.0
        self._exhausted = False
        self._sent_of: Counter[int] = Counter()
        self._decided_of: Counter[int] = Counter()
        self._heard: dict[int, list[float]] = defaultdict(list)
        # When those records were sent that are not decided yet, and when the first one was sent of
        # those whose outcomes were heard together. Outcomes come in the order of the records.
        self._sent_at: dict[int, deque[float]] = defaultdict(deque)
        self._first_sent_at: dict[int, list[float]] = defaultdict(list)
        self._under_way: set[asyncio.Future[Any]] = set()
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def sent(self) -> int:
        """How many records were handed to Kafka."""
        return self._sent_of.total()

    @property
    def decided(self) -> int:
        """How many outcomes were seen."""
        return self._decided_of.total()

    def burst(self, records: int) -> None:
        """Send so many more as fast as Kafka takes them. Returns at once."""
        self._due += records

    async def wait_for_decided(self, outcomes: int, timeout: float = _PATIENCE) -> None:
        """Wait until so many outcomes were seen."""
        await self._until(lambda: self.decided >= outcomes, f"{outcomes} outcomes", timeout)

    async def decides_again(self, timeout: float = _PATIENCE) -> None:
        """Wait until every partition has decided something that is sent from now on.

        Needs a `rate`, and records left for every partition.
        """
        before = [self._sent_of[partition] for partition in range(self._partitions)]

        def all_decide() -> bool:
            return all(self._decided_of[number] > sent for number, sent in enumerate(before))

        await self._until(all_decide, "every partition decides again", timeout)

    def longest_silence(self, since: float) -> float:
        """Seconds for which some partition gave no outcome, at most, from `since` on."""
        longest = 0.0
        for times in self._heard.values():
            after = [since, *times[bisect_right(times, since) :]]
            gaps = [end - begin for begin, end in pairwise(after)]
            longest = max(longest, *gaps, 0.0)
        return longest

    def longest_wait(self, since: float) -> float:
        """Seconds that a record waited for its outcome, at most, not counting before `since`.

        Unlike a silence it does not grow with the time between two records.
        """
        return max(
            heard - max(sent, since)
            for number, times in self._heard.items()
            for heard, sent in zip(times, self._first_sent_at[number], strict=True)
            if heard > since
        )

    async def finish(self, timeout: float = _PATIENCE) -> None:
        """Send what is due and nothing more, and wait until all that was sent is decided.

        Returns as well when nothing has come for a while: the checker says then what is missing.
        """
        self._rate = 0.0
        await self._until(lambda: self._exhausted or self._due < 1, "all is sent", timeout)
        await self._producer.flush()
        await asyncio.gather(*self._under_way)
        begin = time.monotonic()

        def decided_or_silent() -> bool:
            heard = max([begin, *(times[-1] for times in self._heard.values())])
            return self.decided >= self.sent or time.monotonic() - heard > _SILENCE

        await self._until(decided_or_silent, f"{self.sent} outcomes", timeout)

    async def send(self) -> None:
        """Send what becomes due until nothing is left."""
        last = time.monotonic()
        while not self._exhausted:
            now = time.monotonic()
            self._due += self._rate * (now - last)
            last = now
            while self._due >= 1 and not self._exhausted:
                await self._send_one()
            await asyncio.sleep(_TICK)

    async def _send_one(self) -> None:
        record = next(self._records, None)
        if record is None:
            self._exhausted = True
            return
        partition = record.partition
        if partition is None:
            partition = partition_of(record.key or b"", self._partitions)
        self._sent_at[partition].append(time.monotonic())
        acknowledged = await self._producer.send(
            self._topic,
            record.value,
            record.key,
            partition=partition,
            headers=list(record.headers),
        )
        self._under_way.add(acknowledged)
        acknowledged.add_done_callback(self._under_way.discard)
        self._sent_of[partition] += 1
        self._due -= 1

    async def listen(self) -> None:
        """Count outcomes as they come."""
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=200)).items():
                self._decided_of[tp.partition] += len(records)
                now = time.monotonic()
                self._heard[tp.partition].append(now)
                waiting = self._sent_at[tp.partition]  # empty if something was decided twice
                self._first_sent_at[tp.partition].append(waiting[0] if waiting else now)
                for _ in records[: len(waiting)]:
                    waiting.popleft()

    async def _until(
        self, condition: Callable[[], bool], what: str, timeout: float = _PATIENCE
    ) -> None:
        def holds() -> bool:
            for task in self.tasks:
                if task.done():
                    task.result()  # raises what ended it
            return condition()

        try:
            await wait_until(holds, timeout=timeout, what=what)
        except NotInTime as error:
            raise NotInTime(f"{error} ({self.sent} sent, {self.decided} decided)") from None


@asynccontextmanager
async def open_traffic(
    deployed: Deployment, records: Iterable[Record], *, rate: float = 0.0, **options: Any
) -> AsyncIterator[Traffic]:
    """Traffic on a deployment for the time of the block; `options` are the producer's."""
    settings = deployed.settings
    async with (
        started(new_producer(settings, linger_ms=5, **options), settings) as producer,
        started(new_consumer(settings, fetch_max_wait_ms=50), settings) as consumer,
    ):
        consumer.assign(partitions_of(settings, deployed.names.outcomes))
        traffic = Traffic(deployed, producer, consumer, iter(records), rate)
        traffic.tasks = [
            asyncio.create_task(traffic.send(), name="send commands"),
            asyncio.create_task(traffic.listen(), name="listen to outcomes"),
        ]
        try:
            yield traffic
        finally:
            for task in traffic.tasks:
                task.cancel()
            await asyncio.gather(*traffic.tasks, return_exceptions=True)


async def send(
    producer: AIOKafkaProducer, deployed: Deployment, commands: Iterable[dict[str, Any]]
) -> int:
    """Put wire commands on the command topic; returns how many, once all are acknowledged."""
    sent = []
    for command in commands:
        key = command["aggregateId"].encode()
        partition = partition_of(key, deployed.settings.partitions)
        value = json.dumps(command).encode()
        sent.append(await producer.send(deployed.names.commands, value, key, partition=partition))
    await asyncio.gather(*sent)
    return len(sent)


class OutcomeCounter:
    """Counts the committed outcomes of a deployment as they come."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.total = 0
        self.by_partition: dict[int, int] = {}

    async def count(self) -> int:
        """How many there are by now."""
        for tp, records in (await self._consumer.getmany(timeout_ms=100)).items():
            self.total += len(records)
            self.by_partition[tp.partition] = self.by_partition.get(tp.partition, 0) + len(records)
        return self.total

    async def reach(self, total: int, timeout: float = 60) -> None:
        """Wait until there are at least so many."""

        async def reached() -> bool:
            return await self.count() >= total

        await wait_until(reached, timeout=timeout, what=f"{total} outcomes")


@asynccontextmanager
async def counting(deployed: Deployment) -> AsyncIterator[OutcomeCounter]:
    """Count a deployment's outcomes from the first one."""
    consumer = new_consumer(deployed.settings)
    await consumer.start()
    try:
        consumer.assign(partitions_of(deployed.settings, deployed.names.outcomes))
        yield OutcomeCounter(consumer)
    finally:
        await consumer.stop()


async def check(deployed: Deployment) -> Report:
    """Let the checker find every invariant kept."""
    report = await verify_users(deployed.settings, timeout=60)
    assert report.first_violation is None
    return report
