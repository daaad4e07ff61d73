"""Driver of one partition that a worker owns: start, chunks, recovery, end.

A `PartitionDriver` starts its partition (fence, restore, seek) in a task of its own, so that a long
restore delays neither the rebalance nor the other partitions. Then it takes one chunk after the
other and checks each before it is processed:

- gap: a chunk that starts after the position would skip records; it is dropped, and the consumer
  seeks back to the position;
- overlap: records below the position were processed already and are left out, if the log is
  still the same: it may have been deleted and created again, or have lost records.

So it does not matter under which assignment a chunk was fetched: the log is the same for every
worker, and owners in between have moved the position that this one starts from.

After a chunk that failed the next one is never processed: the partition starts again, with backoff.
If it cannot continue (`PartitionFatal`) it is parked: other partitions are none the worse for it.
None of this uses Faust's agent supervisor, which would deliver the next chunk. All of it is one
class: whatever happens to a partition is a step of its one task.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from faust.types import TP

from models.errors import Fatal, PartitionFatal, Transient
from streams import metrics, tracing
from streams.concurrency import cancel
from streams.kafka.transactions import Fenced
from streams.logs import about, name_of
from streams.worker.chunks import MAX_CHUNK_BYTES, Chunk
from streams.worker.failures import Failures, backoff
from streams.worker.logs import log_defect
from streams.worker.partition import (
    Partition,
    PartitionConsumer,
    PartitionReport,
    PartitionStatus,
)

logger = logging.getLogger(__name__)

# Time until a parked partition is tried again, unless a rebalance comes first.
_PARKED_RETRY_S = 60.0

# Least time from the end of a chunk to the next one, unless this many records wait: records that
# come sooner are joined with those that follow. At a fifth of the load: a third fewer transactions,
# and outcomes come sooner, because the broker and the event loop have less to do.
_PAUSE_S = 0.004
_NO_PAUSE_RECORDS = 200


class PartitionDriver:
    """Driver of one partition: one task at a time, which starts it or processes its chunks.

    Chunks that come while one is processed, or soon after it, are joined: the more load, the more
    records in a transaction.

    state       position  busy  what it does
    ----------  --------  ----  ------------------------------------------------------------------
    lost        None      no    nothing until `start`: it is new, or was abandoned, fenced or failed
    parked      None      no    nothing until `start`, which a timer calls after a minute
    starting    None      yes   fences and restores, with retries if it is still assigned here; or
                                closes, when it was fenced
    idle        set       no    waits for a chunk
    processing  set       yes   processes chunks; those that come meanwhile wait

    It is busy while its task runs. It is `ready` while its position is set, the waiting chunks
    together are smaller than one chunk may be, and the log could be read behind them.
    """

    def __init__(
        self,
        tp: TP,
        partition: Partition,
        consumer: PartitionConsumer,
        max_records: int,
        on_parked: Callable[[PartitionFatal], None],
        on_started: Callable[[], None],
    ) -> None:
        """Drive the partition ``tp``.

        ``on_parked`` is called each time that it is parked, ``on_started`` each time that it was
        started.
        """
        self.tp = tp
        self._max_records = max_records
        self.position: int | None = None  # None until started
        self._partition = partition
        self._consumer = consumer
        self._task: asyncio.Task[None] | None = None
        # A good start does not end the failures of chunks: each of those is followed by one.
        self._failed_starts, self._failed_chunks = Failures(tp), Failures(tp)
        self._processed_at = 0.0
        self._progressed_at = time.monotonic()  # or was assigned
        self._on_parked = on_parked
        self._on_started = on_started
        self._parked: str | None = None  # the reason, until a start succeeds
        self._retry: asyncio.TimerHandle | None = None
        self._running: Chunk | None = None
        # Chunks that wait for the running one; once they fill one, the partition is paused.
        self._waiting: deque[Chunk] = deque()

    def start(self, *, assigned: bool = False) -> None:
        """Start or restart the partition in the background.

        Unless it was just ``assigned``, the group has to confirm first that it still is.
        """
        self._cancel_retry()
        self._task = self._spawn(self._start_and_work(assigned))

    def submit(self, chunk: Chunk) -> None:
        """Process a chunk in the background, after those that were submitted before it."""
        if self.position is None:
            return  # it will be read again, from the position that the start returns
        self._waiting.append(chunk)
        if not self._busy:
            self._task = self._spawn(self._work())
        elif not self.ready:
            self._consumer.pause(self.tp)

    async def settle(self, timeout: float) -> None:
        """Let the running chunk finish within ``timeout`` seconds, else abandon it.

        The transaction of an abandoned chunk may or may not have been committed, so the partition
        has to start again. A running start continues. Waiting chunks belong to an assignment that
        ends, and are dropped.
        """
        if self.position is None or self._task is None:
            return
        self._waiting.clear()
        _, running = await asyncio.wait({self._task}, timeout=timeout)
        if running:
            logger.warning(
                "%s: abandoning a chunk that did not finish in time",
                name_of(self.tp),
                extra=about("chunk-abandoned", self.tp),
            )
            await self.abandon()

    async def abandon(self) -> None:
        """Cancel what runs; the partition is `lost` then."""
        self._cancel_retry()
        self._forget()
        if self._task is not None:
            await cancel(self._task)

    async def close(self) -> None:
        """Cancel what runs and give the partition up."""
        await self.abandon()
        await self._partition.close()

    @property
    def ready(self) -> bool:
        """Whether it is started and has room for more chunks."""
        return (
            self.position is not None
            and self._records_waiting < self._max_records
            and sum(chunk.size for chunk in self._waiting) < MAX_CHUNK_BYTES
            and not any(chunk.failure for chunk in self._waiting)
        )

    @property
    def status(self) -> PartitionStatus:
        """How far it is. A start counts as waiting: restoring may take any time."""
        is_waiting = (self._busy and self.position is None) or self._partition.is_waiting
        return PartitionStatus(self.position, self._failures, is_waiting, self._parked)

    def report(self, end: int | None) -> PartitionReport:
        """Return what is known of it; ``end`` is the last stable offset, if that is known."""
        ago = time.monotonic() - self._progressed_at
        return PartitionReport(self.status, end, self._next_at(), time.time() - ago)

    def _next_at(self) -> float | None:
        """Return the timestamp of the next record to process, among those that were fetched."""
        chunks = [self._running, *self._waiting]
        found = (
            record.timestamp / 1000
            for chunk in chunks
            if chunk is not None
            for record in chunk.records
            if record.offset >= (self.position or 0)
        )
        return next(found, None)

    @property
    def restored(self) -> int | None:
        """Number of aggregates whose state the partition holds; None if it holds none."""
        return self._partition.restored

    @property
    def lost(self) -> bool:
        """Whether the partition is neither started nor starting; it may be parked."""
        return self.position is None and not self._busy

    @property
    def _records_waiting(self) -> int:
        return sum(len(chunk.records) for chunk in self._waiting)

    @property
    def _failures(self) -> int:
        return self._failed_starts.count + self._failed_chunks.count

    @property
    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _forget(self) -> None:
        self.position = None
        self._waiting.clear()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(work), name=f"partition {name_of(self.tp)}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            try:
                await work
            except Fenced:
                # Another worker owns the partition, or the broker aborted our transaction. The
                # group knows which: it assigns the partition again, to that worker or to us.
                self._forget()
                logger.warning(
                    "%s: fenced; rejoining the group",
                    name_of(self.tp),
                    extra=about("partition-fenced", self.tp),
                )
                await self._partition.close()
                await self._consumer.rejoin()
            except PartitionFatal as error:
                await self._park(error)
        except Fatal as error:
            self._forget()
            self._consumer.fail(error)
        except Exception as error:
            self._forget()
            log_defect(f"{name_of(self.tp)}: the driver", error, self.tp)
            self._consumer.fail(
                Fatal(
                    f"{name_of(self.tp)}: its driver raised {type(error).__name__}; this is a "
                    "defect, the log says where"
                )
            )

    async def _park(self, error: PartitionFatal) -> None:
        """Give the partition up for a minute and report why."""
        self._forget()
        self._consumer.pause(self.tp)
        await self._partition.close()
        self._parked = str(error)
        self._retry = asyncio.get_running_loop().call_later(_PARKED_RETRY_S, self.start)
        logger.error(
            "%s is parked for %g s: %s",
            name_of(self.tp),
            _PARKED_RETRY_S,
            error,
            extra=about("partition-parked", self.tp),
        )
        self._on_parked(error)

    async def _start(self, *, assigned: bool = False) -> None:
        """Start, and retry until that succeeds; after a failure, wait first.

        A start fences. A worker that does not reach the group's coordinator is not told that it
        has lost the partition, and would fence the new owner with each attempt. So only the first
        one after it was ``assigned`` is made without asking.
        """
        failed_at = self.position  # if a chunk has failed
        self._forget()
        self._consumer.pause(self.tp)
        while True:
            if self._failures:
                assigned = False
                await asyncio.sleep(backoff(self._failures))
            try:
                if not assigned:
                    await self._consumer.until_owned(self.tp)
                began = time.monotonic()
                position = await self._partition.start()
                metrics.PARTITION_START_SECONDS.labels(self.tp.topic).observe(
                    time.monotonic() - began
                )
                self.position = position
                self._parked = None
                logger.debug(
                    "%s: continuing at position %d",
                    name_of(self.tp),
                    position,
                    extra=about("partition-started", self.tp, position=position),
                )
                await self._consumer.read_from(self.tp, position)
            except (Fatal, Fenced):
                raise
            except Exception as error:
                self._forget()
                await self._failed(self._failed_starts, "cannot start", error)
            else:
                self._failed_starts.clear()
                if failed_at is not None and position > failed_at:
                    self._failed_chunks.clear()  # it was committed after all
                self._on_started()
                return

    async def _start_and_work(self, assigned: bool) -> None:
        await self._start(assigned=assigned)
        await self._work()  # on chunks that came while the consumer was sent to the position

    async def _work(self) -> None:
        while await self._chunks_wait():
            chunk = self._running = self._next_chunk()
            self._consumer.resume(self.tp)
            try:
                await self._process(chunk)
            except (Fatal, Fenced):
                raise
            except Exception as error:
                what = f"the chunk at position {chunk.start} failed"
                await self._failed(self._failed_chunks, what, error)
                await self._start()
            finally:
                self._running = None

    async def _failed(self, failures: Failures, what: str, error: Exception) -> None:
        """Count and log a failure. Raises Fatal if there is no point in trying again.

        It is logged at once: with brokers that take connections and do not respond, the question
        whether they refuse this worker takes seconds.
        """
        fatal: Fatal | None = None
        try:
            failures.add(what, error)
        except Fatal as found:
            fatal = found
        reason = await self._consumer.refusal(error) or fatal
        if reason is not None:
            raise reason from error

    async def _chunks_wait(self) -> bool:
        """Pause if few records wait; return whether a chunk waits then."""
        pause = self._processed_at + _PAUSE_S - time.monotonic()
        if pause > 0 and 0 < self._records_waiting < _NO_PAUSE_RECORDS and self.ready:
            await asyncio.sleep(pause)
        return bool(self._waiting)

    def _next_chunk(self) -> Chunk:
        """Take the chunk that came first, joined with those that follow it, up to the limits."""
        chunk = self._waiting.popleft()
        while (
            self._waiting
            and chunk.followed_by(self._waiting[0])
            and len(chunk.records) + len(self._waiting[0].records) <= self._max_records
            and chunk.size + self._waiting[0].size <= MAX_CHUNK_BYTES
        ):
            chunk = chunk.joined_with(self._waiting.popleft())
        return chunk

    async def _process(self, chunk: Chunk) -> None:
        assert self.position is not None
        if chunk.failure is not None and chunk.start <= self.position <= chunk.end:
            raise chunk.failure
        if chunk.start < self.position:
            await self._check_log()
        if chunk.end <= self.position:
            return  # all of it was processed already
        if chunk.start > self.position:
            logger.info(
                "%s: a gap: chunk starts at %d, reading again from the position %d",
                name_of(self.tp),
                chunk.start,
                self.position,
                extra=about("chunk-gap", self.tp, position=self.position),
            )
            self._consumer.pause(self.tp)
            self._waiting.clear()
            begin, _ = await self._consumer.log_bounds(self.tp)
            if begin > self.position:
                raise Transient("the log starts after the position")  # starting raises what to do
            await self._consumer.read_from(self.tp, self.position)
            return
        records = chunk.records
        if chunk.start < self.position:
            records = [record for record in records if record.offset >= self.position]
        with tracing.processing(self.tp.topic, self.tp.partition, records):
            await self._partition.process(records, chunk.end)
        self.position = chunk.end
        self._failed_chunks.clear()
        self._processed_at = self._progressed_at = time.monotonic()

    async def _check_log(self) -> None:
        """Check that the log has not gone back, and is no other one.

        Raises:
            Fatal, Transient: it has or is; starting raises what to do.
        """
        assert self.position is not None
        await self._partition.check_log()
        _, end = await self._consumer.log_bounds(self.tp)
        if end < self.position:
            raise Transient(f"the log ends at {end}, before the position {self.position}")
