"""A worker and a partition without servers, and a driver between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from faust.types import TP

from models.errors import Fatal, PartitionFatal
from streams.kafka.records import Record
from streams.worker.chunks import Chunk
from streams.worker.driver import PartitionDriver
from streams.worker.partitions import Partitions

TOPIC = TP("things.commands.v1", 0)


class FakeWorker:
    """Remembers what the drivers asked of it."""

    def __init__(self) -> None:
        self.sought: list[int] = []
        self.begin, self.end = 0, 1000
        self.paused = False
        self.rejoined = 0
        self.failure: Fatal | None = None
        self.refused: Fatal | None = None
        self.asked = asyncio.Event()
        self.confirmed = asyncio.Event()
        self.confirmed.set()

    async def read_from(self, tp: TP, position: int) -> None:
        self.sought.append(position)
        self.paused = False

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        return self.begin, self.end

    def pause(self, tp: TP) -> None:
        self.paused = True

    def resume(self, tp: TP) -> None:
        self.paused = False

    async def rejoin(self) -> None:
        self.rejoined += 1

    async def until_owned(self, tp: TP) -> None:
        self.asked.set()
        await self.confirmed.wait()

    async def refusal(self, error: Exception) -> Fatal | None:
        return self.refused

    def fail(self, error: Fatal) -> None:
        self.failure = error


class FakePartition:
    """Starts at a position, and processes what it is let process."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self.starts = 0
        self.closed = 0
        self.processed: list[int] = []
        self.chunks: list[list[int]] = []
        self.committed = 0
        self.begun = asyncio.Event()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        self.before_commit: Callable[[], None] = lambda: None
        self.is_waiting = False
        self.restored: int | None = 3
        self.log_checks = 0
        self.other_log: Fatal | None = None

    async def start(self) -> int:
        self.starts += 1
        self.begun.set()
        await self.start_gate.wait()
        return max(self.position, self.committed)

    async def check_log(self) -> None:
        self.log_checks += 1
        if self.other_log is not None:
            raise self.other_log

    async def process(self, records: Sequence[Record], position: int) -> None:
        self.entered.set()
        await self.gate.wait()
        self.before_commit()
        self.processed.extend(record.offset for record in records)
        self.chunks.append([record.offset for record in records])
        self.committed = position

    async def close(self) -> None:
        self.closed += 1


def chunk(start: int, end: int) -> Chunk:
    return Chunk(
        TOPIC, [Record(*TOPIC, offset, 0, None, b"") for offset in range(start, end)], start, end
    )


def unreadable(start: int, end: int, reason: Exception) -> Chunk:
    """No records from `start` to `end`, where the log could not be read."""
    return Chunk(TOPIC, (), start, end, reason)


async def idle(driver: PartitionDriver) -> None:
    """Wait for all that the driver has been given."""
    assert driver._task is not None
    await driver._task


def new_driver(
    worker: FakeWorker,
    partition: FakePartition,
    on_parked: Callable[[PartitionFatal], None] = lambda _: None,
) -> PartitionDriver:
    return PartitionDriver(
        TOPIC, partition, worker, max_records=4, on_parked=on_parked, on_started=lambda: None
    )


def partitions_of(worker: FakeWorker) -> tuple[Partitions, Mapping[TP, FakePartition]]:
    """A worker's partitions of the topic, without any yet, and those that it gets later."""
    made: dict[TP, FakePartition] = {}

    def make(tp: TP) -> FakePartition:
        made[tp] = FakePartition()
        return made[tp]

    partitions = Partitions(worker, settle_timeout=1, max_records=4)
    partitions.handle(TOPIC.topic, make)
    return partitions, made
