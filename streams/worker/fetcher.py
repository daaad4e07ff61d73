"""Chunks out of aiokafka's fetcher, in the thread of Faust's consumer.

Each chunk has the positions around its records: commit markers, aborted transactions and compaction
leave holes between offsets, so only positions tell whether a record is missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import aiokafka
from aiokafka.client import ConnectionGroup
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError, NoError, for_code
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from mode.utils.futures import maybe_async

from streams.kafka.aiokafka_patches import read_within_bounds
from streams.kafka.clients import stop
from streams.kafka.connections import use_own_connections
from streams.kafka.permissions import NOT_ALLOWED
from streams.kafka.records import Record, size_of
from streams.logs import about, name_of
from streams.worker.chunks import MAX_CHUNK_BYTES, Chunk
from streams.worker.host import Host
from streams.worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

# For lines of Faust's services, which are logged as a library's, whatever module extends them.
faust_logger = logging.getLogger("faust.transport")

# How long the broker holds a fetch that finds no records. aiokafka sends one fetch per broker at a
# time: a partition that is not part of it (it was paused, or sought) waits until it returns.
BROKER_WAIT_MS = 50

# How long a range without records waits for a chunk that it could be part of. The marker of a
# transaction often comes in a later fetch than its records, and must not cost one of its own.
_PASSED_WAIT_S = 0.5

_TURN_INTERVAL_S = 1.0

# Wait before the group's coordinator is asked again who owns a partition.
_OWNER_CHECK_S = 0.5

# Records that are unpacked at a time; after each step their bytes are counted.
_STEP_RECORDS = 32


class _Passed(NamedTuple):
    """A range of positions without records: commit markers, aborted transactions."""

    start: int
    end: int
    since: float  # `time.monotonic` when the first of it was passed


class _Consumer(Protocol):
    """The consumer that chunks are fetched for."""

    @property
    def flow_active(self) -> bool:
        """Whether anything may be fetched now (Faust's)."""

    @property
    def active_partitions(self) -> set[TP]:
        """Partitions that chunks may be taken from now."""


class ChunkConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread; it takes chunks with their positions out of aiokafka's fetcher."""

    logger = faust_logger

    def __post_init__(self) -> None:
        """Start without passed ranges."""
        super().__post_init__()
        # Ranges that the position has passed since the last chunk. They belong to the next chunk,
        # or become one.
        self._passed: dict[TP, _Passed] = {}
        self.turned_at: float | None = None
        """When this thread's event loop last turned (`time.monotonic`); None before it starts."""

    @property
    def _fetched_for(self) -> _Consumer:
        return cast("_Consumer", self.consumer)

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = BROKER_WAIT_MS  # Faust fixes it at 1,500
        # Without changelogs of its own Faust assigns round robin; that moves most partitions
        # whenever a worker joins or leaves.
        consumer._partition_assignment_strategy = (StickyPartitionAssignor,)
        use_own_connections(consumer._client)
        return consumer

    async def on_start(self) -> None:
        """Start the consumer; what it fetches is unpacked within bounds."""
        await super().on_start()
        read_within_bounds(self._ensure_consumer())

    async def on_thread_stop(self) -> None:
        """Leave the group, if the broker responds; calls that still need the consumer then fail."""
        if self._consumer is not None:
            await stop(self._consumer)
        await super().on_thread_stop()

    async def getmany(  # type: ignore[override]
        self, active_partitions: set[TP] | None, timeout: float
    ) -> list[Chunk]:
        """Return the next chunks; an empty list if none come within ``timeout`` seconds."""
        return await self.call_thread(self._fetch, timeout)  # type: ignore[no-any-return]

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the consumer in its thread, whatever other calls wait for.

        Bypasses the method queue of Faust's thread, where each call occupies one of two workers
        until it returns: aiokafka asks for the ends of a partition without a leader for 40 s, and
        two of those would hold up all other partitions.
        """

        async def call() -> Any:
            return await maybe_async(fun(*args, **kwargs))

        called = asyncio.run_coroutine_threadsafe(call(), self.thread_loop)
        return await asyncio.wrap_future(called)

    async def _fetch(self, timeout: float) -> list[Chunk]:
        """Do as ``Fetcher.fetched_records``, with the positions around each partition's records."""
        consumer = self._ensure_consumer()
        most = self.app.conf.broker_max_poll_records
        fetcher = consumer._fetcher
        if not self._fetched_for.flow_active:
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
                waiter.result()  # raises the fetcher's error, if any
                if not fetcher._subscriptions.reassignment_in_progress:
                    chunks = self._drain(fetcher, most)
        return chunks

    def _drain(self, fetcher: Any, max_records: int | None) -> list[Chunk]:
        active = self._fetched_for.active_partitions
        host = cast("Host", self.app)
        chunks: list[Chunk] = []
        for topic_partition in list(fetcher._records):
            tp = TP(topic_partition.topic, topic_partition.partition)
            if tp not in active:
                if not fetcher._subscriptions.is_assigned(topic_partition):
                    del fetcher._records[topic_partition]
                continue
            result = fetcher._records[topic_partition]
            state = fetcher._subscriptions.subscription.assignment.state_value(topic_partition)
            before = state.position if state is not None and state.has_valid_position else None
            failure: Exception | None = None
            records: Sequence[Record] = ()
            try:
                records = _take(result, max_records)
            except NOT_ALLOWED:
                raise  # it concerns the worker
            except Exception as error:  # its driver decides what becomes of the partition
                failure = error
            if failure is not None or not result.has_more():
                del fetcher._records[topic_partition]
                fetcher._notify(fetcher._wait_consume_future)
            if before is None or (state.position == before and failure is None):
                continue
            if state.lso is not None:
                host.partitions.note_ends({tp: state.lso})
            passed = self._passed.pop(tp, None)
            if passed is None or passed.end != before:  # it was sought meanwhile
                passed = _Passed(before, before, time.monotonic())
            if records or failure is not None:
                chunks.append(Chunk(tp, records, passed.start, state.position, failure))
            else:
                self._passed[tp] = _Passed(passed.start, state.position, passed.since)
        return chunks + self._take_passed(active)

    def _take_passed(self, active: Collection[TP]) -> list[Chunk]:
        """Return chunks without records, of ranges that have waited long enough.

        They make the position durable behind the last record of a quiet partition. Otherwise
        retention removes the range, and it looks as if commands had expired.
        """
        due = time.monotonic() - _PASSED_WAIT_S
        taken = [tp for tp, passed in self._passed.items() if passed.since <= due and tp in active]
        ranges = {tp: self._passed.pop(tp) for tp in taken}
        return [Chunk(tp, (), passed.start, passed.end) for tp, passed in ranges.items()]

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """Return the first offset on the broker, and the last stable one, where reading ends."""
        return await self.call_thread(self._log_bounds, tp)  # type: ignore[no-any-return]

    async def _log_bounds(self, tp: TP) -> tuple[int, int]:
        consumer = self._ensure_consumer()
        partition = TopicPartition(tp.topic, tp.partition)
        begin = await consumer.beginning_offsets([partition])
        end = await consumer.end_offsets([partition])
        return begin[partition], end[partition]

    @Service.task
    async def _watch(self) -> None:
        """Stop the worker when the consumer's tasks have ended or a partition makes no progress."""
        host = cast("Host", self.app)
        await Watchdog(host, self._ensure_consumer()).run()

    @Service.task
    async def _note_turns(self) -> None:
        """Note every second that the event loop turns."""
        while not self.should_stop:
            self.turned_at = time.monotonic()
            await asyncio.sleep(_TURN_INTERVAL_S)

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        """Commit these positions as the group's offsets."""
        partitions = {TopicPartition(tp.topic, tp.partition): at for tp, at in positions.items()}
        await self.call_thread(self._ensure_consumer().commit, partitions)

    def wake(self) -> None:
        """End the current wait for records: a partition has become active."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        fetcher = self._ensure_consumer()._fetcher
        for waiter in fetcher._fetch_waiters:
            fetcher._notify(waiter)

    async def until_owned(self, tp: TP) -> None:
        """Wait until the group's coordinator confirms that the partition is assigned here.

        Returns at once if it does so now; otherwise it is logged.
        """
        await self.call_thread(self._until_owned, tp)

    async def _until_owned(self, tp: TP) -> None:
        is_logged = False
        while not await self._owns(tp):
            if not is_logged:
                logger.warning(
                    "%s: starts again when the group's coordinator confirms that this worker still "
                    "owns it",
                    name_of(tp),
                    extra=about("partition-unconfirmed", tp),
                )
                is_logged = True
            await asyncio.sleep(_OWNER_CHECK_S)

    async def _owns(self, tp: TP) -> bool:
        """Send a heartbeat of our own; False also if nobody answers, and during a rebalance.

        What follows from the answer is left to aiokafka's heartbeats.
        """
        consumer = self._ensure_consumer()
        group, subscriptions = consumer._coordinator, consumer._subscription
        if (
            group.coordinator_id is None
            or subscriptions.reassignment_in_progress
            or not subscriptions.is_assigned(TopicPartition(*tp))
        ):
            return False
        heartbeat = HeartbeatRequest(group.group_id, group.generation, group.member_id)
        try:
            response = await consumer._client.send(
                group.coordinator_id, heartbeat, group=ConnectionGroup.COORDINATION
            )
        except KafkaError:
            return False
        return for_code(response.error_code) is NoError

    async def rejoin(self) -> None:
        """Ask for a rebalance of the group."""
        await self.call_thread(self._rejoin)

    async def _rejoin(self) -> None:
        self._ensure_consumer()._coordinator.request_rejoin()


def _take(result: FetchResult | FetchError, most: int | None) -> Sequence[Record]:
    """Take the next records out of a fetch, no more than a chunk may have; or raise its error.

    A fetch is limited by its size on the wire: unpacked records may be a thousand times as large.
    """
    if isinstance(result, FetchError):
        result.check_raise()
    records: list[Record] = []
    size = 0
    while result.has_more() and size < MAX_CHUNK_BYTES and (most is None or len(records) < most):
        taken = result.getall(
            _STEP_RECORDS if most is None else min(_STEP_RECORDS, most - len(records))
        )
        records += taken
        size += size_of(taken)
    return records
