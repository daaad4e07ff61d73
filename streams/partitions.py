"""The partitions that a worker owns, and what happens to each: start, chunks, recovery, end.

One `Driver` per owned input partition. It starts its partition (fence, restore, seek) in a task
of its own, so that a long restore holds up neither the rebalance nor the other partitions. It
then takes chunks one after the other and checks each before it is processed:

- the generation: a chunk fetched under an older assignment is dropped;
- the gap: a chunk that starts after the position would skip commands; it is dropped and the
  consumer is sent back to the position;
- the overlap: records below the position were processed already and are left out.

A chunk that fails is never followed by the next one: the partition starts again, with backoff.
Nothing of this goes through Faust's agent supervisor, which would hand out the next chunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP
from tenacity import AsyncRetrying, RetryCallState, retry_if_not_exception_type
from tenacity.wait import wait_random_exponential

from models.errors import Fatal, Transient
from streams.chunks import Chunk, Record

logger = logging.getLogger(__name__)

# What outages raise, tried again for ever. Of anything else this many in a row stop the worker.
_PASSING = (KafkaError, Transient, OSError, asyncio.TimeoutError)
_MOST_DEFECTS = 5


class Fenced(Exception):  # noqa: N818 - named as Kafka names it
    """Another process has taken over the partition's transactional id."""


class Partition(Protocol):
    """What a worker does with one input partition."""

    async def start(self) -> int:
        """Take the partition over, restore what it needs, and return the position to read from.

        Called again after any failure; it starts from nothing then.
        """

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Process records in order and make their effect durable together with ``position``.

        Raises:
            Fenced: the partition belongs to somebody else now.
            Fatal: the worker has to stop.
            Exception: anything else; the partition starts again and the records come again.
        """

    async def close(self) -> None:
        """Give the partition up; what is not durable is thrown away."""


class Worker(Protocol):
    """What the drivers need of the app."""

    @property
    def consumer_generation_id(self) -> int:
        """The consumer group's generation that the current assignment belongs to."""

    async def read_from(self, tp: TP, position: int) -> None:
        """Deliver this partition's chunks from ``position`` on."""

    async def log_start(self, tp: TP) -> int:
        """The first position that the broker still has."""

    def pause(self, tp: TP) -> None:
        """Deliver no more chunks of this partition."""

    def resume(self, tp: TP) -> None:
        """Deliver chunks of this partition again."""

    async def rejoin(self) -> None:
        """Ask the consumer group for a new assignment."""

    def fail(self, error: Fatal) -> None:
        """Stop the worker with this one line."""


class Driver:
    """Runs one partition: one task at a time, which starts it or works off its chunks.

    Chunks that come while one is at work are joined: under load a transaction carries more.
    """

    def __init__(self, tp: TP, partition: Partition, worker: Worker, max_records: int) -> None:
        self.tp = tp
        self._max_records = max_records
        self.position: int | None = None  # None until started
        self._partition = partition
        self._worker = worker
        self._task: asyncio.Task[None] | None = None
        self._defects = 0  # failures in a row that no outage explains
        # Chunks that wait while one is at work; when they fill one, the partition is paused.
        self._waiting: deque[Chunk] = deque()

    def start(self) -> None:
        """Start or restart the partition in the background."""
        self._task = self._spawn(self._start())

    def submit(self, chunk: Chunk) -> None:
        """Process a chunk in the background, after the one before it."""
        if self.position is None:
            return  # starting: it will read again from its position
        self._waiting.append(chunk)
        if not self._busy:
            self._task = self._spawn(self._work())
        elif not self.ready:
            self._worker.pause(self.tp)

    async def settle(self, timeout: float) -> None:
        """Let the chunk at work finish within ``timeout`` seconds, else abandon it.

        An abandoned chunk's transaction may or may not have been committed, so the partition
        has to start again before it goes on. A running start goes on. Waiting chunks are of an
        assignment that ends, and are dropped.
        """
        if self.position is None or self._task is None:
            return
        self._waiting.clear()
        _, running = await asyncio.wait({self._task}, timeout=timeout)
        if running:
            logger.warning("%s: abandoning a chunk that did not finish in time", _name(self.tp))
            await self._abandon()

    async def close(self) -> None:
        """Stop whatever runs and give the partition up."""
        await self._abandon()
        await self._partition.close()

    @property
    def ready(self) -> bool:
        """Whether more chunks are wanted now."""
        waiting = sum(len(chunk.records) for chunk in self._waiting)
        return self.position is not None and waiting < self._max_records

    @property
    def lost(self) -> bool:
        """Whether the partition neither runs nor is about to."""
        return self.position is None and not self._busy

    @property
    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _abandon(self) -> None:
        self._forget()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _forget(self) -> None:
        self.position = None
        self._waiting.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(work), name=f"partition {_name(self.tp)}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Fenced:
            # Somebody owns the partition now, or the broker gave up on our transaction. The
            # group knows which: it assigns the partition again, to us or to them.
            self._forget()
            logger.warning("%s: fenced by a newer owner; rejoining the group", _name(self.tp))
            await self._partition.close()
            await self._worker.rejoin()
        except Fatal as error:
            self._forget()
            self._worker.fail(error)

    async def _start(self) -> None:
        self._forget()
        self._worker.pause(self.tp)
        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=10),
            retry=retry_if_not_exception_type((Fatal, Fenced, asyncio.CancelledError)),
            before_sleep=self._log_retry,
            reraise=True,
        ):
            with attempt:
                position = await self._partition.start()
        self.position = position
        logger.info("%s: going on at position %d", _name(self.tp), position)
        await self._worker.read_from(self.tp, position)

    async def _work(self) -> None:
        while self._waiting:
            chunk = self._next_chunk()
            self._worker.resume(self.tp)
            try:
                await self._process(chunk)
            except (Fatal, Fenced):
                raise
            except _PASSING as error:
                logger.warning("%s: chunk failed, starting again: %r", _name(self.tp), error)
                await self._start()
            except Exception as error:
                self._defects += 1
                logger.exception("%s: chunk failed, starting again", _name(self.tp))
                if self._defects == _MOST_DEFECTS:
                    raise Fatal(
                        f"{_name(self.tp)}: failed {self._defects} times at position "
                        f"{chunk.start}: {error!r}; this is a defect, the log has its traceback"
                    ) from error
                await self._start()
            else:
                self._defects = 0

    def _next_chunk(self) -> Chunk:
        """The chunk that came first, joined with those that follow it, up to the limit."""
        chunk = self._waiting.popleft()
        while (
            self._waiting
            and chunk.followed_by(self._waiting[0])
            and len(chunk.records) + len(self._waiting[0].records) <= self._max_records
        ):
            chunk = chunk.joined_with(self._waiting.popleft())
        return chunk

    async def _process(self, chunk: Chunk) -> None:
        assert self.position is not None
        if chunk.generation != self._worker.consumer_generation_id:
            return  # of an older assignment; the rebalance seeks back
        if chunk.end <= self.position:
            return  # all of it was processed before
        if chunk.start > self.position:
            logger.info(
                "%s: chunk starts at %d, after the position %d; reading again from there",
                _name(self.tp),
                chunk.start,
                self.position,
            )
            if await self._worker.log_start(self.tp) > self.position:
                raise Transient("the log starts after the position")  # starting says what to do
            self._waiting.clear()
            await self._worker.read_from(self.tp, self.position)
            return
        records = chunk.records
        if chunk.start < self.position:
            records = [record for record in records if record.offset >= self.position]
        await self._partition.process(records, chunk.end)
        self.position = chunk.end

    def _log_retry(self, state: RetryCallState) -> None:
        logger.warning(
            "%s: cannot start, trying again in %.1f s: %r",
            _name(self.tp),
            state.next_action.sleep if state.next_action else 0.0,
            state.outcome.exception() if state.outcome else None,
        )


class Partitions:
    """All partitions of a worker; Faust's rebalances arrive here."""

    def __init__(
        self,
        worker: Worker,
        settle_timeout: float,
        max_records: int,
    ) -> None:
        self._worker = worker
        self._max_records = max_records
        self._new_partition: dict[str, Callable[[TP], Partition]] = {}
        self._settle_timeout = settle_timeout
        self._drivers: dict[TP, Driver] = {}

    def handle(self, topic: str, new_partition: Callable[[TP], Partition]) -> None:
        """Say what to do with the partitions of a topic."""
        self._new_partition[topic] = new_partition

    def submit(self, chunk: Chunk) -> None:
        """Hand a chunk to its partition; chunks of partitions that are not ours are dropped."""
        driver = self._drivers.get(chunk.tp)
        if driver is not None:
            driver.submit(chunk)

    async def revoke(self, revoked: Collection[TP]) -> None:
        """Let the running chunks of revoked partitions finish, or abandon them."""
        await asyncio.gather(
            *(
                driver.settle(self._settle_timeout)
                for tp, driver in self._drivers.items()
                if tp in revoked
            )
        )

    async def assign(self, assigned: Iterable[TP]) -> None:
        """Start what is new, restart what was abandoned, close what went elsewhere."""
        assigned = set(assigned)
        gone = [self._drivers.pop(tp) for tp in set(self._drivers) - assigned]
        await asyncio.gather(*(driver.close() for driver in gone))
        for tp in assigned:
            if tp not in self._drivers:
                self._drivers[tp] = Driver(
                    tp, self._new_partition[tp.topic](tp), self._worker, self._max_records
                )
            if self._drivers[tp].lost:
                self._drivers[tp].start()

    async def close(self, timeout: float) -> None:
        """Give everything up; running chunks have ``timeout`` seconds to finish."""
        await asyncio.gather(*(driver.settle(timeout) for driver in self._drivers.values()))
        await self.assign(())

    def is_ready(self, tp: TP) -> bool:
        """Whether chunks of this partition are wanted."""
        return tp in self._drivers and self._drivers[tp].ready

    def positions(self) -> dict[TP, int]:
        """Where to read on, for the partitions that are ready."""
        return {
            tp: driver.position
            for tp, driver in self._drivers.items()
            if driver.position is not None
        }


def _name(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
