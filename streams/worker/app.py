"""The Faust app of a worker: settings, transport, and how it starts, fails and stops.

The process around it is in `streams/worker/process.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, cast

import faust
from faust.types import TP, AgentT, TopicT

from models.errors import Fatal
from streams.kafka.clients import cluster_id
from streams.kafka.topics import TopicSpec, check_topics
from streams.settings import Settings
from streams.worker.health import serving_health
from streams.worker.logs import log_defect, logging_config
from streams.worker.partition import Partition
from streams.worker.partitions import Partitions
from streams.worker.process import StreamWorker
from streams.worker.transport import ChunkConsumer, ChunkSchema, ChunkTransport

logger = logging.getLogger(__name__)

# Seconds that a rebalance waits for members, how many of them a running chunk may use, and how
# many it has when the worker stops.
REBALANCE_TIMEOUT = 30.0
SETTLE_TIMEOUT = REBALANCE_TIMEOUT / 2
STOP_TIMEOUT = 3.0

# Seconds between two heartbeats. By its next one a worker hears of a rebalance, for which all
# partitions of the group wait: the default, a third of the session timeout, would be the pause.
HEARTBEAT_INTERVAL = 0.5

# Seconds between two commits of the group's offsets, which only tools that show its lag look at.
# As a part of every transaction they were two of its five requests.
COMMIT_INTERVAL = 1.0

# Seconds that the last commit has when the worker stops.
_LAST_COMMIT_TIMEOUT = 1.0


class StreamApp(faust.App):
    """A Faust app whose agents get chunks, and whose partitions look after themselves.

    It is what the partitions' drivers see as their `PartitionConsumer`.
    """

    logger = logging.getLogger("faust.app")  # what it says of itself is Faust's news
    failure: Fatal | None = None
    cluster: str
    """The id of the Kafka cluster; it is known before the first partition starts."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Make the app of the worker role ``name``, which also names its consumer group."""
        super().__init__(
            f"{settings.namespace}{name}",
            broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
            Worker=StreamWorker,
            processing_guarantee="exactly_once",
            broker_session_timeout=settings.session_timeout,
            broker_heartbeat_interval=HEARTBEAT_INTERVAL,
            broker_rebalance_timeout=REBALANCE_TIMEOUT,
            # Only fetching counts as polling, and a worker may well fetch nothing for hours: an
            # idle standby, or a view while Elasticsearch is away. Leaving the group would be final.
            broker_max_poll_interval=10 * 365 * 24 * 3600.0,
            broker_commit_interval=COMMIT_INTERVAL,
            broker_max_poll_records=settings.max_chunk_records,
            consumer_auto_offset_reset="earliest",
            topic_allow_declare=False,
            topic_disable_leader=True,
            table_standby_replicas=0,
            stream_wait_empty=False,
            worker_redirect_stdouts=False,
            logging_config=logging_config(settings.log_level),
            web_enabled=False,
            web_bind="127.0.0.1",
            web_in_thread=False,
        )
        self.settings = settings
        self.partitions = Partitions(
            self, settle_timeout=SETTLE_TIMEOUT, max_records=settings.max_chunk_records
        )
        self._topics: list[TopicSpec] = []
        self._clients = AsyncExitStack()
        self._open_clients: list[Callable[[AsyncExitStack], Awaitable[None]]] = []

    def input(
        self,
        topic: str,
        topics: Sequence[TopicSpec],
        new_partition: Callable[[TP], Partition],
    ) -> TopicT:
        """Declare an input topic: what exists beside it, and what to do with its partitions.

        Returns the channel for an agent, which hands each of its chunks to ``app.partitions``.
        """
        self._topics.extend(topics)
        self.partitions.handle(topic, new_partition)
        return self.topic(topic, schema=ChunkSchema(), acks=False)

    def on_open(self, open_clients: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
        """Open clients before the first partition starts; they close after the last one did."""
        self._open_clients.append(open_clients)

    async def on_first_start(self) -> None:
        """Open the clients."""
        await super().on_first_start()
        if self.settings.health_port is not None:
            port = await self._clients.enter_async_context(
                serving_health(self.settings.health_port, self.partitions.statuses)
            )
            logger.info("health: http://127.0.0.1:%d/health", port)
        for open_clients in self._open_clients:
            await open_clients(self._clients)

    async def preflight(self) -> None:
        """Check what the worker needs before it joins its group.

        Raises:
            Fatal: a server does not answer, or a topic is missing or differs.
        """
        await check_topics(self.settings, self._topics)
        self.cluster = await cluster_id(self.settings)

    def _create_directories(self) -> None:
        """Nothing is kept on disk."""

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_producer, self)

    async def on_stop(self) -> None:
        """Finish or abandon the running chunks, then stop as Faust does."""
        logger.info("stopping; running chunks have %g s", STOP_TIMEOUT)
        await self.partitions.settle(STOP_TIMEOUT)
        if self.partitions.positions():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._chunk_consumer.commit(), _LAST_COMMIT_TIMEOUT)
        await self.partitions.close()
        await self._clients.aclose()
        await super().on_stop()

    async def read_from(self, tp: TP, position: int) -> None:
        """Deliver this partition's chunks from ``position`` on."""
        await self._chunk_consumer.seek_to({tp: position})
        self.resume(tp)

    def pause(self, tp: TP) -> None:
        """Deliver no more chunks of this partition."""
        self._chunk_consumer.pause_partitions({tp})

    def resume(self, tp: TP) -> None:
        """Deliver chunks of this partition again, if it is ours and wants them."""
        consumer = self._chunk_consumer
        consumer.resume_partitions({tp} & consumer.assignment())
        consumer.wake()

    async def committed(self, tp: TP) -> int | None:
        """The group's position in a partition, if it has one."""
        return await self._chunk_consumer.committed(tp)

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """The first position that the broker still has, and the one after the last."""
        return await self._chunk_consumer.log_bounds(tp)

    async def rejoin(self) -> None:
        """Ask the consumer group for a new assignment."""
        await self._chunk_consumer.rejoin()

    def fail(self, error: Fatal) -> None:
        """Stop the worker with this one line; from any thread."""
        if self.failure is None:
            self.failure = error
            logger.critical("%s", error)
            if not self.should_stop:
                os.kill(os.getpid(), signal.SIGTERM)

    def _crash(self, reason: BaseException) -> None:
        """One of Faust's services died: the others would idle without it."""
        if not self.should_stop:
            self.fail(
                reason
                if isinstance(reason, Fatal)
                else Fatal(f"a part of the worker failed, the log says where: {reason!r}")
            )
        super()._crash(reason)

    async def _on_agent_error(self, agent: AgentT[Any], error: BaseException) -> None:
        """An agent only hands on chunks: an error is a defect, and Faust would skip the chunk."""
        log_defect(f"agent {agent.name}", error)
        self.fail(Fatal(f"agent {agent.name} raised {type(error).__name__}; the log says where"))

    @property
    def _chunk_consumer(self) -> ChunkConsumer:
        return cast(Any, self.consumer)  # type: ignore[no-any-return]
