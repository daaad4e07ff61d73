"""Commands that keep coming while something breaks, and the times of their outcomes."""

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
from deploy.waiting import NotInTime, Turns, wait_until
from streams.audit.report import Report
from streams.kafka.clients import new_consumer, new_producer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of

_TICK_S = 0.01
# After this time without an outcome none is expected: it is longer than any session timeout.
_SILENCE_TIMEOUT_S = 20.0
_TIMEOUT_S = 120.0


class Record(NamedTuple):
    """A record to send; to the partition of its key and with this time, unless others are given."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None
    timestamp_ms: int | None = None


def record_of(command: Mapping[str, Any]) -> Record:
    """Return a wire command as a record."""
    return Record(command["aggregateId"].encode(), json.dumps(command).encode())


def records_of(commands: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """Yield wire commands as records."""
    return map(record_of, commands)


class Traffic:
    """Sends records in order, and notes when a `read_committed` consumer sees their outcomes.

    Records are sent at a constant rate; `burst` sends more at once. Times are of `time.monotonic`.
    """

    def __init__(
        self,
        deployed: Deployment,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        records: Iterator[Record],
        rate: float,
    ) -> None:
        """Prepare; `open_traffic` runs it. `rate` is in records per second."""
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
        # By partition: when the undecided records were sent; and for each poll, when the first of
        # its records was sent. Outcomes come in the order of the records.
        self._sent_at: dict[int, deque[float]] = defaultdict(deque)
        self._first_sent_at: dict[int, list[float]] = defaultdict(list)
        self._under_way: set[asyncio.Future[Any]] = set()
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def sent(self) -> int:
        """Number of records that were handed to the producer."""
        return self._sent_of.total()

    @property
    def decided(self) -> int:
        """Number of outcomes that were seen."""
        return self._decided_of.total()

    def burst(self, records: int) -> None:
        """Send this many more as fast as Kafka accepts them. Returns at once."""
        self._due += records

    def count_foreign(self, partition: int) -> None:
        """Count a record that somebody else sent: as a command, or in the place of an outcome."""
        self._sent_at[partition].append(time.monotonic())
        self._sent_of[partition] += 1

    async def wait_for_decided(self, outcomes: int, timeout: float = _TIMEOUT_S) -> None:
        """Wait until this many outcomes were seen."""
        await self._until(lambda: self.decided >= outcomes, f"{outcomes} outcomes", timeout)

    async def until_deciding(self, timeout: float = _TIMEOUT_S) -> None:
        """Wait until every partition has decided a record that is sent after this call.

        Needs a rate, and records left for every partition.
        """
        before = [self._sent_of[partition] for partition in range(self._partitions)]

        def all_decide() -> bool:
            return all(self._decided_of[number] > sent for number, sent in enumerate(before))

        await self._until(all_decide, "every partition decides", timeout)

    def longest_silence(self, since: float) -> float:
        """Return the longest time of any partition without an outcome after `since`, in seconds."""
        longest = 0.0
        for times in self._heard.values():
            after = [since, *times[bisect_right(times, since) :]]
            gaps = [end - begin for begin, end in pairwise(after)]
            longest = max(longest, *gaps, 0.0)
        return longest

    def longest_wait(self, since: float) -> float:
        """Return the longest wait of a record for its outcome, in seconds, counted from `since`.

        Unlike a silence it does not grow with the time between two records.
        """
        return max(
            heard - max(sent, since)
            for number, times in self._heard.items()
            for heard, sent in zip(times, self._first_sent_at[number], strict=True)
            if heard > since
        )

    async def finish(self, timeout: float = _TIMEOUT_S) -> None:
        """Send only what is due, and wait until everything that was sent is decided.

        Also returns when no outcome has come for 20 s: `verify` then names what is missing.
        """
        self._rate = 0.0
        await self._until(lambda: self._exhausted or self._due < 1, "all is sent", timeout)
        await self._producer.flush()
        await asyncio.gather(*self._under_way)
        begin = time.monotonic()

        def decided_or_silent() -> bool:
            heard = max([begin, *(times[-1] for times in self._heard.values())])
            return self.decided >= self.sent or time.monotonic() - heard > _SILENCE_TIMEOUT_S

        await self._until(decided_or_silent, f"{self.sent} outcomes", timeout)

    async def send(self) -> None:
        """Send records when they become due, until none is left."""
        last = time.monotonic()
        async for _ in Turns(_TICK_S):
            if self._exhausted:
                return
            now = time.monotonic()
            self._due += self._rate * (now - last)
            last = now
            while self._due >= 1 and not self._exhausted:
                await self._send_one()

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
            timestamp_ms=record.timestamp_ms,
            headers=list(record.headers),
        )
        self._under_way.add(acknowledged)
        acknowledged.add_done_callback(self._under_way.discard)
        self._sent_of[partition] += 1
        self._due -= 1

    async def listen(self) -> None:
        """Note outcomes as they come, forever."""
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
        self, condition: Callable[[], bool], what: str, timeout: float = _TIMEOUT_S
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
    """Send records to a deployment during the block; `options` are the producer's.

    `rate` is in records per second; without one, only bursts are sent.
    """
    settings = deployed.settings
    async with (
        started(new_producer(settings, linger_ms=5, **options), settings) as producer,
        started(new_consumer(settings, fetch_max_wait_ms=50), settings) as consumer,
    ):
        outcomes = partitions_of(settings, deployed.names.outcomes)
        consumer.assign(outcomes)
        # Outcomes of an earlier traffic say nothing about what is sent now.
        for partition, end in (await consumer.end_offsets(outcomes)).items():
            consumer.seek(partition, end)
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
    """Send wire commands, wait until Kafka has acknowledged them, and return their number."""
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
        """Poll once, and return the number of outcomes so far."""
        for tp, records in (await self._consumer.getmany(timeout_ms=100)).items():
            self.total += len(records)
            self.by_partition[tp.partition] = self.by_partition.get(tp.partition, 0) + len(records)
        return self.total

    async def reach(self, total: int, timeout: float = 60) -> None:
        """Wait until there are at least this many."""

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
    """Run `verify`, assert that every invariant holds, and return the report."""
    report = await verify_users(deployed.settings, timeout=60)
    assert report.first_violation is None
    return report
