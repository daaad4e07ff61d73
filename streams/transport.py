"""Faust's transport, changed to deliver one message per fetched chunk instead of one per record.

Faust's path per message costs more than everything else together; a chunk takes it once per
hundreds of records. The consumer still is Faust's: its thread, its group membership, its flow
control. What changes:

- ``Consumer.getmany`` yields one message per (partition, fetched chunk); its value is a `Chunk`.
- What Faust does for single messages between the consumer's thread and the agents is left out: it
  takes dozens of turns of an event loop that is busy deciding.
- The group's committed offsets follow the partitions' positions, for tools that show the lag.
- Partitions stay with the worker that has them, as far as balance allows: their state is there.
- Where to read on is told by the app's `Partitions`, not by the group's committed offsets.
- ``TransactionManager`` is only the hook that Faust awaits on a rebalance, before anything is
  read again (`processing_guarantee="exactly_once"` switches it on, and ``read_committed`` with
  it). Faust's own transactions lose and duplicate; none of their code runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import aiokafka
import faust
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.consumer import TransactionManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from faust.types.transports import TPorTopicSet
from mode import Service, ServiceT

from streams.chunks import MOST_BYTES, Chunk
from streams.kafka.clients import stop
from streams.kafka.records import FetchedRecord, Record, size_of
from streams.watchdog import Watchdog

if TYPE_CHECKING:
    from streams.app import StreamApp

# Faust's services name their logger after their module; what these say is Faust's news.
faust_logger = logging.getLogger("faust.transport")

# How long one wait for records may take. Partitions that become active meanwhile are seen by the
# next wait, so it bounds what a restored partition waits for its first chunk.
FETCH_WAIT = 0.25

# How long the broker holds a fetch that finds nothing. aiokafka has one fetch per broker under way;
# a partition that was not part of it (it was paused, or sought) waits for it to return.
BROKER_WAIT_MS = 50

# Records that are unpacked between two looks at how many bytes they are.
_STEP = 32


class ChunkSchema(faust.Schema[Any, Any]):
    """Hands the chunk on as it is; records are decoded inside the agents."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """A chunk has no key."""
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """The chunk itself."""
        return message.value


class ChunkConsumerThread(driver.AIOKafkaConsumerThread):
    """Takes chunks with their positions out of aiokafka's fetcher."""

    logger = faust_logger

    def __post_init__(self) -> None:
        """Prepare the record of skipped ranges."""
        super().__post_init__()
        # Ranges without records (markers, aborted transactions) that the position has passed
        # since the last chunk: partition -> (from, to). They belong to the next chunk.
        self._passed: dict[TP, tuple[int, int]] = {}

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = BROKER_WAIT_MS  # Faust fixes it at 1,500
        # Faust takes round robin where it has no changelogs to look after; that moves most
        # partitions whenever a worker comes or goes.
        consumer._partition_assignment_strategy = (StickyPartitionAssignor,)
        return consumer

    async def on_thread_stop(self) -> None:
        """Leave the group, if the broker answers; what is still asked of it then fails."""
        if self._consumer is not None:
            await stop(self._consumer)
        await super().on_thread_stop()

    async def getmany(  # type: ignore[override]
        self, active_partitions: set[TP] | None, timeout: float
    ) -> list[Chunk]:
        """The next chunks; none if there are none in so many seconds.

        It does not queue behind other calls, of which each takes a thread's worker for its time.
        """
        fetching = asyncio.run_coroutine_threadsafe(self._fetch(timeout), self.thread_loop)
        return await asyncio.wrap_future(fetching)

    async def _fetch(self, timeout: float) -> list[Chunk]:
        """Like ``Fetcher.fetched_records``, with the positions around each partition's records."""
        consumer = self._ensure_consumer()
        most = self.app.conf.broker_max_poll_records
        fetcher = consumer._fetcher
        if not self.consumer.flow_active:
            return []
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            if fetcher._subscriptions.reassignment_in_progress:
                await fetcher._subscriptions.wait_for_assignment()
            chunks = self._drain(fetcher, most)
            if not chunks:
                waiter = fetcher._create_fetch_waiter()
                done, _ = await asyncio.wait([waiter], timeout=timeout)
                if not done:
                    waiter.cancel()
                    return []
                waiter.result()  # raises what the fetcher failed with
                if not fetcher._subscriptions.reassignment_in_progress:
                    chunks = self._drain(fetcher, most)
        return chunks

    def _drain(self, fetcher: Any, max_records: int | None) -> list[Chunk]:
        active = cast("ChunkConsumer", self.consumer).active_partitions
        chunks: list[Chunk] = []
        for topic_partition in list(fetcher._records):
            tp = TP(topic_partition.topic, topic_partition.partition)
            if tp not in active:
                if not fetcher._subscriptions.is_assigned(topic_partition):
                    del fetcher._records[topic_partition]
                continue
            result = fetcher._records[topic_partition]
            if type(result) is not FetchResult:
                if chunks:
                    break  # the error is raised by the next call
                del fetcher._records[topic_partition]
                fetcher._notify(fetcher._wait_consume_future)
                result.check_raise()
                continue
            state = fetcher._subscriptions.subscription.assignment.state_value(topic_partition)
            before = state.position if state is not None and state.has_valid_position else None
            records = _take(result, max_records)
            if not result.has_more():
                del fetcher._records[topic_partition]
                fetcher._notify(fetcher._wait_consume_future)
            if before is None or state.position == before:
                continue
            passed = self._passed.pop(tp, None)
            start = passed[0] if passed is not None and passed[1] == before else before
            if records:
                chunks.append(Chunk(tp, records, start, state.position))
            else:
                self._passed[tp] = (start, state.position)
        return chunks

    async def committed(self, tp: TP) -> int | None:
        """The group's position, if it has one."""
        partition = TopicPartition(tp.topic, tp.partition)
        return await self.call_thread(  # type: ignore[no-any-return]
            self._ensure_consumer().committed, partition
        )

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """The first position that the broker still has, and the one after the last."""
        return await self.call_thread(self._log_bounds, tp)  # type: ignore[no-any-return]

    async def _log_bounds(self, tp: TP) -> tuple[int, int]:
        consumer = self._ensure_consumer()
        partition = TopicPartition(tp.topic, tp.partition)
        begin = await consumer.beginning_offsets([partition])
        end = await consumer.end_offsets([partition])
        return begin[partition], end[partition]

    @Service.task
    async def _watch(self) -> None:
        """End the worker when something here has ended, or no longer gets on."""
        app = cast("StreamApp", self.app)
        await Watchdog(app, self._ensure_consumer(), self._reached).run()

    def _reached(self, tp: TP, position: int) -> int:
        """Where a partition stands that is done with all records before ``position``."""
        start, end = self._passed.get(tp, (position, position))
        return end if start <= position < end else position

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        """Commit the group's positions."""
        partitions = {TopicPartition(tp.topic, tp.partition): at for tp, at in positions.items()}
        await self.call_thread(self._ensure_consumer().commit, partitions)

    def wake(self) -> None:
        """Let a wait for records look again: a partition has become active."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        fetcher = self._ensure_consumer()._fetcher
        for waiter in fetcher._fetch_waiters:
            fetcher._notify(waiter)

    async def rejoin(self) -> None:
        """Ask for a rebalance of the group."""
        await self.call_thread(self._rejoin)

    async def _rejoin(self) -> None:
        self._ensure_consumer()._coordinator.request_rejoin()


def _take(result: FetchResult, most: int | None) -> Sequence[Record]:
    """The next records of a fetch, no more than a chunk may have.

    A fetch is bounded as it was sent: compressed records may be a thousand times as large.
    """
    records: list[Record] = []
    size = 0
    if result.has_more():
        result._partition_records._consumer_record = _fetched
    while result.has_more() and size < MOST_BYTES and (most is None or len(records) < most):
        taken = result.getall(_STEP if most is None else min(_STEP, most - len(records)))
        records += taken
        size += size_of(taken)
    return records


def _fetched(tp: TopicPartition, record: Any) -> FetchedRecord:
    """In the place of `PartitionRecords._consumer_record`, which was 7% of a worker's CPU."""
    return FetchedRecord(
        tp.topic,
        tp.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, yielding chunks and reading on from where the partitions say."""

    logger = faust_logger
    app: StreamApp
    _thread: ChunkConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._committed: dict[TP, int] = {}  # as far as this process has committed them
        self._resumed = asyncio.Event()

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def active_partitions(self) -> set[TP]:
        """Partitions that chunks may be taken from now."""
        return self._active_partitions

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield a message per fetched chunk."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type] # as in Faust
        if not self.active_partitions:
            self._resumed.clear()
            await self.wait(self._resumed, timeout=FETCH_WAIT)  # type: ignore[arg-type] # as above
            return
        chunks = await self._thread.getmany(self.active_partitions, FETCH_WAIT)
        for chunk in chunks:
            if self.should_stop or not self.flow_active:
                return  # a gap now: the rebalance that stopped the flow seeks back
            yield chunk.tp, self._chunk_message(chunk)

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand each chunk to its agent until the fetcher or this is stopped.

        Faust's stream gives its agent one message per turn of the event loop. Who is faster fills
        its queue, where chunks wait that would have been one.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for _, message in self.getmany(FETCH_WAIT):
                    await self.callback(message)
                    await asyncio.sleep(0)
        except (asyncio.CancelledError, ConsumerStoppedError):
            if not self.app.should_stop:
                raise

    def _chunk_message(self, chunk: Chunk) -> ConsumerMessage:
        last = chunk.records[-1]
        return ConsumerMessage(
            chunk.tp.topic,
            chunk.tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            0,
            None,
            None,
            cast("bytes", chunk),  # `ChunkSchema` takes it out again
            None,
            tp=chunk.tp,
            generation_id=self.app.consumer_generation_id,
        )

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume those that are ready; the others resume themselves once restored."""
        super().resume_partitions({tp for tp in tps if self.app.partitions.is_ready(tp)})
        self._resumed.set()

    async def perform_seek(self) -> None:
        """Seek the partitions that were kept over a rebalance back to their positions."""
        await self.seek_to(self.app.partitions.positions())

    async def seek_to(self, positions: Mapping[TP, int]) -> None:
        """Read on from these positions; partitions that are no longer ours are left alone."""
        assigned = self.assignment()
        positions = {tp: position for tp, position in positions.items() if tp in assigned}
        try:
            await self.seek_wait(positions)
        except IllegalStateError:
            self.log.info("Partitions moved while seeking; the rebalance decides")

    async def committed(self, tp: TP) -> int | None:
        """The group's position, if it has one."""
        return await self._thread.committed(tp)

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """The first position that the broker still has, and the one after the last."""
        return await self._thread.log_bounds(tp)

    async def commit(
        self, topics: TPorTopicSet | None = None, start_new_transaction: bool = True
    ) -> bool:
        """Commit the positions that have changed; Faust calls this once in `COMMIT_INTERVAL`.

        Nothing rests on it: whoever takes a partition over reads its position where its effects
        are. So a commit that the group refuses is left to the next one.
        """
        assigned = self.assignment()
        positions = {
            tp: position
            for tp, position in self.app.partitions.positions().items()
            if tp in assigned and self._committed.get(tp) != position
        }
        if not positions or self.app.rebalancing:
            return False
        try:
            await self._thread.commit_positions(positions)
        except KafkaError as error:
            self.log.info("Positions were not committed: %r", error)
            return False
        self._committed.update(positions)
        return True

    def wake(self) -> None:
        """Look for chunks again now: a partition has become active."""
        self._thread.wake()

    async def rejoin(self) -> None:
        """Ask for a rebalance of the group."""
        await self._thread.rejoin()


class RebalanceHook(TransactionManager):
    """Where Faust tells of revoked and assigned partitions, and waits."""

    logger = faust_logger
    app: StreamApp

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let running chunks finish; called before the group moves on."""
        await self.app.partitions.revoke(revoked)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]
    ) -> None:
        """Take over what is assigned and drop the rest; called before reading starts again."""
        # By this the group's leader tells claims of an earlier assignment from current ones;
        # aiokafka 0.14 leaves it out (its issue 1176).
        StickyPartitionAssignor.on_generation_assignment(self.app.consumer_generation_id)
        await self.app.partitions.assign(assigned)


class ChunkTransport(driver.Transport):
    """The transport of a `StreamApp`."""

    Consumer = ChunkConsumer
    TransactionManager = RebalanceHook
