"""Faust's transport, changed to deliver one message per fetched chunk instead of one per record.

Faust's path per message costs more than everything else together; a chunk takes it once for
hundreds of records. The consumer is still Faust's: its thread, its group membership, its flow
control. What changes:

- ``Consumer.getmany`` yields one message per (partition, fetched chunk); its value is a `Chunk`.
- What Faust does for single messages between the consumer's thread and the agents is skipped: it
  takes dozens of turns of an event loop that is busy deciding.
- The group's committed offsets follow the partitions' positions, for tools that show the lag.
- Partitions stay with the worker that owns them, as far as balance allows: their state is there.
- The position to read from comes from the app's `Partitions`, not from the group's committed
  offsets.
- ``TransactionManager`` is only the hook that Faust awaits in a rebalance, before anything is read
  again (`processing_guarantee="exactly_once"` switches it on, and ``read_committed`` with it).
  Faust's own transactions lose and duplicate records; none of their code runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, cast

import faust
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError
from faust.transport.consumer import TransactionManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from faust.types.transports import TPorTopicSet
from mode import ServiceT

from streams.kafka.topics import wrong_partitions
from streams.logs import about
from streams.worker.chunks import Chunk
from streams.worker.fetcher import ChunkConsumerThread, faust_logger
from streams.worker.host import Host

# How long one wait for records may take. Partitions that become active meanwhile are part of the
# next one, so this limits how long a restored partition waits for its first chunk.
FETCH_WAIT_S = 0.25


class ChunkSchema(faust.Schema[Any, Any]):
    """A schema that passes chunks on unchanged; their records are decoded later."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """Return None: a chunk has no key."""
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """Return the chunk."""
        return message.value


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, which yields chunks and reads from the partitions' positions."""

    logger = faust_logger
    _thread: ChunkConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._committed: dict[TP, int] = {}  # positions that this process committed last
        self._resumed = asyncio.Event()

    @property
    def _host(self) -> Host:
        return cast("Host", self.app)

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def active_partitions(self) -> set[TP]:
        """Partitions that chunks may be taken from now."""
        return self._active_partitions

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield a message per fetched chunk, also if a rebalance has begun meanwhile.

        The rebalance may have sought before the chunk was taken, so nothing would read it again.
        Faust passes it on when the rebalance is over, and its driver knows what of it is due.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type] # as in Faust
        if not self.active_partitions:
            self._resumed.clear()
            await self.wait(self._resumed, timeout=FETCH_WAIT_S)  # type: ignore[arg-type] # as above
            return
        chunks = await self._thread.getmany(self.active_partitions, FETCH_WAIT_S)
        for chunk in chunks:
            if self.should_stop:
                return
            yield chunk.tp, self._chunk_message(chunk)

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Pass each chunk to its agent, one per turn of the event loop, as Faust's stream does.

        Fetching faster would only queue many small chunks instead of one large one. Ends when the
        fetcher or this consumer is stopped.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for _, message in self.getmany(FETCH_WAIT_S):
                    await self.callback(message)
                    await asyncio.sleep(0)
        except (asyncio.CancelledError, ConsumerStoppedError):
            if not self._host.should_stop:
                raise

    def _chunk_message(self, chunk: Chunk) -> ConsumerMessage:
        return ConsumerMessage(
            chunk.tp.topic,
            chunk.tp.partition,
            chunk.end - 1,
            chunk.records[-1].timestamp / 1000.0 if chunk.records else time.time(),
            0,
            None,
            None,
            cast("bytes", chunk),  # `ChunkSchema` returns it as it is
            None,
            tp=chunk.tp,
            generation_id=self._host.consumer_generation_id,
        )

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume those that are ready; the drivers of the others resume them later."""
        super().resume_partitions({tp for tp in tps if self._host.partitions.is_ready(tp)})
        self._resumed.set()

    async def perform_seek(self) -> None:
        """Seek the partitions that were kept in a rebalance back to their positions."""
        await self.seek_to(self._host.partitions.positions())

    async def seek_to(self, positions: Mapping[TP, int]) -> None:
        """Seek to these positions, of partitions that are still assigned here."""
        assigned = self.assignment()
        positions = {tp: position for tp, position in positions.items() if tp in assigned}
        try:
            await self.seek_wait(positions)
        except IllegalStateError:
            self.log.info(
                "Partitions were reassigned while seeking: left to the rebalance",
                extra=about("seek-abandoned"),
            )

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """Return the first offset on the broker, and the last stable one, where reading ends."""
        return await self._thread.log_bounds(tp)

    async def commit(
        self, topics: TPorTopicSet | None = None, start_new_transaction: bool = True
    ) -> bool:
        """Commit the positions that have changed; Faust calls this every `COMMIT_INTERVAL_S`.

        Nothing depends on it: a new owner of a partition reads the position that was stored with
        the partition's effects. So a commit that the group refuses is left to the next one.
        """
        assigned = self.assignment()
        positions = {
            tp: position
            for tp, position in self._host.partitions.positions().items()
            if tp in assigned and self._committed.get(tp) != position
        }
        if not positions or self._host.rebalancing:
            return False
        try:
            await self._thread.commit_positions(positions)
        except KafkaError as error:
            self.log.info(
                "Positions were not committed: %r", error, extra=about("positions-not-committed")
            )
            return False
        self._committed.update(positions)
        return True

    @property
    def turned_at(self) -> float | None:
        """When the event loop of the consumer's thread last turned (`time.monotonic`)."""
        return self._thread.turned_at

    def wake(self) -> None:
        """Fetch again now: a partition has become active."""
        self._thread.wake()

    async def until_owned(self, tp: TP) -> None:
        """Wait until the group's coordinator confirms that the partition is assigned here."""
        await self._thread.until_owned(tp)

    async def rejoin(self) -> None:
        """Ask for a rebalance of the group."""
        await self._thread.rejoin()


class RebalanceHook(TransactionManager):
    """The hook that Faust awaits when partitions are revoked or assigned."""

    logger = faust_logger

    @property
    def _host(self) -> Host:
        return cast("Host", self.app)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let running chunks finish; called before the partitions move."""
        await self._host.partitions.revoke(revoked)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]
    ) -> None:
        """Take over what is assigned and give up the rest; called before reading starts again."""
        # The group's leader needs the generation to tell claims of earlier assignments from
        # current ones; aiokafka 0.14 does not set it (its issue 1176).
        StickyPartitionAssignor.on_generation_assignment(self._host.consumer_generation_id)
        for tp in assigned:
            if tp.partition >= self._host.settings.partitions:
                # They were added while the worker runs.
                self._host.fail(
                    wrong_partitions(tp.topic, f"more than {tp.partition}", self._host.settings)
                )
                return
        await self._host.partitions.assign(assigned)


class ChunkTransport(driver.Transport):
    """The transport of a `StreamApp`."""

    Consumer = ChunkConsumer
    TransactionManager = RebalanceHook
