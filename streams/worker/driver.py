"""What happens to one partition that a worker owns: start, chunks, recovery, end.

A `PartitionDriver` starts its partition (fence, restore, seek) in a task of its own, so that a long
restore holds up neither the rebalance nor the other partitions. It then takes chunks one after the
other and checks each before it is processed:

- the gap: a chunk that starts after the position would skip commands; it is dropped and the
  consumer is sent back to the position;
- the overlap: records below the position were processed already and are left out.

Under which assignment a chunk was fetched does not matter then: the log is the same for everybody,
and whoever owned the partition meanwhile has moved the position that this one starts from.

A chunk that fails is never followed by the next one: the partition starts again, with backoff.
Nothing of this goes through Faust's agent supervisor, which would hand out the next chunk.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidTransactionTimeout,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedCodecError,
)
from faust.types import TP

from models.errors import Fatal, Transient
from streams.kafka.transactions import Fenced
from streams.worker.chunks import MOST_BYTES, Chunk
from streams.worker.logs import log_defect
from streams.worker.partition import Partition, PartitionConsumer, PartitionStatus

logger = logging.getLogger(__name__)

# What outages raise is tried again for ever, unless only a person can mend it. Anything else is a
# defect; this many failures in a row stop the worker then.
_PASSING = (KafkaError, Transient, OSError, asyncio.TimeoutError)
_PERMANENT = (
    GroupAuthorizationFailedError,
    InvalidTransactionTimeout,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedCodecError,
)
_MOST_DEFECTS = 5

_LONGEST_WAIT = 10.0  # seconds between two attempts

# Seconds between two chunks of a partition, unless that many records wait. What comes so soon after
# a chunk makes one with what follows it: at a fifth of the load that is a third fewer transactions,
# and whoever waits for an outcome has it sooner, for the broker and the event loop have less to do.
_PAUSE = 0.004
_NO_PAUSE_FROM = 200


class PartitionDriver:
    """Runs one partition: one task at a time, which starts it or works off its chunks.

    Chunks that come while one is at work, or soon after it, are joined: under load a transaction
    carries more.
    """

    def __init__(
        self, tp: TP, partition: Partition, worker: PartitionConsumer, max_records: int
    ) -> None:
        self.tp = tp
        self._max_records = max_records
        self.position: int | None = None  # None until started
        self._partition = partition
        self._worker = worker
        self._task: asyncio.Task[None] | None = None
        self._failures = 0  # since the last chunk that was processed
        self._processed_at = 0.0
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
            await self.abandon()

    async def abandon(self) -> None:
        """Stop whatever runs; the partition is `lost` then."""
        self._forget()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """Stop whatever runs and give the partition up."""
        await self.abandon()
        await self._partition.close()

    @property
    def ready(self) -> bool:
        """Whether more chunks are wanted now."""
        return (
            self.position is not None
            and self._records_waiting < self._max_records
            and sum(chunk.size for chunk in self._waiting) < MOST_BYTES
        )

    @property
    def status(self) -> PartitionStatus:
        """How far it is. A start takes as long as there is state to restore."""
        waits = (self._busy and self.position is None) or self._partition.is_waiting
        return PartitionStatus(self.position, self._failures, waits)

    @property
    def lost(self) -> bool:
        """Whether the partition neither runs nor is about to."""
        return self.position is None and not self._busy

    @property
    def _records_waiting(self) -> int:
        return sum(len(chunk.records) for chunk in self._waiting)

    @property
    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _forget(self) -> None:
        self.position = None
        self._waiting.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(work), name=f"partition {_name(self.tp)}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            try:
                await work
            except Fenced:
                # Somebody owns the partition now, or the broker gave up on our transaction. The
                # group knows which: it assigns the partition again, to us or to them.
                self._forget()
                logger.warning("%s: fenced; rejoining the group", _name(self.tp))
                await self._partition.close()
                await self._worker.rejoin()
        except Fatal as error:
            self._forget()
            self._worker.fail(error)
        except Exception as error:
            self._forget()
            self._worker.fail(Fatal(f"{_name(self.tp)}: giving it up failed: {error!r}"))

    async def _start(self) -> None:
        """Start until that works; not at once if the partition has just failed."""
        self._forget()
        self._worker.pause(self.tp)
        while True:
            if self._failures:
                await asyncio.sleep(_backoff(self._failures))
            try:
                position = await self._partition.start()
                self.position = position
                logger.info("%s: going on at position %d", _name(self.tp), position)
                await self._worker.read_from(self.tp, position)
            except (Fatal, Fenced):
                raise
            except Exception as error:
                self._forget()
                self._failed("cannot start", error)
            else:
                return

    async def _work(self) -> None:
        while await self._chunks_wait():
            chunk = self._next_chunk()
            self._worker.resume(self.tp)
            try:
                await self._process(chunk)
            except (Fatal, Fenced):
                raise
            except Exception as error:
                self._failed(f"the chunk at position {chunk.start} failed", error)
                await self._start()

    async def _chunks_wait(self) -> bool:
        """Whether there is something to do, after the pause if it is little."""
        pause = self._processed_at + _PAUSE - time.monotonic()
        if pause > 0 and 0 < self._records_waiting < _NO_PAUSE_FROM and self.ready:
            await asyncio.sleep(pause)
        return bool(self._waiting)

    def _failed(self, what: str, error: Exception) -> None:
        """Say so and count it; raises Fatal where trying again is no use."""
        self._failures += 1
        kind = type(error).__name__
        if isinstance(error, _PERMANENT):
            raise Fatal(f"{_name(self.tp)}: {what}: {error!r}; it needs a person") from error
        if isinstance(error, _PASSING):
            logger.warning("%s: %s, trying again: %r", _name(self.tp), what, error)
            return
        log_defect(f"{_name(self.tp)}: {what}, trying again: it", error)
        if self._failures >= _MOST_DEFECTS:
            raise Fatal(
                f"{_name(self.tp)}: {what} {self._failures} times: {kind}; this is a defect, "
                "the log says where"
            ) from error

    def _next_chunk(self) -> Chunk:
        """The chunk that came first, joined with those that follow it, up to the limit."""
        chunk = self._waiting.popleft()
        while (
            self._waiting
            and chunk.followed_by(self._waiting[0])
            and len(chunk.records) + len(self._waiting[0].records) <= self._max_records
            and chunk.size + self._waiting[0].size <= MOST_BYTES
        ):
            chunk = chunk.joined_with(self._waiting.popleft())
        return chunk

    async def _process(self, chunk: Chunk) -> None:
        assert self.position is not None
        if chunk.end <= self.position:
            return  # all of it was processed before
        if chunk.start > self.position:
            logger.info(
                "%s: chunk starts at %d, after the position %d; reading again from there",
                _name(self.tp),
                chunk.start,
                self.position,
            )
            self._worker.pause(self.tp)
            self._waiting.clear()
            begin, _ = await self._worker.log_bounds(self.tp)
            if begin > self.position:
                raise Transient("the log starts after the position")  # starting says what to do
            await self._worker.read_from(self.tp, self.position)
            return
        records = chunk.records
        if chunk.start < self.position:
            records = [record for record in records if record.offset >= self.position]
        await self._partition.process(records, chunk.end)
        self.position = chunk.end
        self._failures = 0
        self._processed_at = time.monotonic()


def _backoff(failures: int) -> float:
    """Seconds to wait: random, up to a bound that doubles."""
    return random.uniform(0, min(_LONGEST_WAIT, 0.2 * 2**failures))


def _name(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"
