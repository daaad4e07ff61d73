"""The Faust app of a worker: settings, transport, and how it starts, fails and stops.

Only `streams.settings` configures it. Faust would let variables of the environment overrule what an
app passes: some 80 with names like BROKER_URL, APP_VERSION or WEB_PORT when the app is created, and
those with the prefixes FAUST_ and F_ when Faust is imported.

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

import async_timeout
import faust
from faust.types import TP, AgentT, FixupT, TopicT

from models.errors import Fatal
from streams import tracing
from streams.kafka.advice import advice
from streams.kafka.clients import check_connection, cluster_id, connection_options
from streams.kafka.permissions import NOT_ALLOWED, NotAllowed, check_rights, not_allowed
from streams.kafka.refusal import Refused
from streams.kafka.rights import Right
from streams.kafka.topics import TopicSpec, check_topics
from streams.logs import about
from streams.settings import Settings
from streams.standard_streams import open_standard_streams
from streams.worker.gauges import PartitionGauges
from streams.worker.health import Health, serving_health
from streams.worker.logs import log_defect, logging_config
from streams.worker.partition import Partition
from streams.worker.partitions import Partitions
from streams.worker.process import StreamWorker
from streams.worker.transport import ChunkConsumer, ChunkSchema, ChunkTransport

logger = logging.getLogger(__name__)

# How long a rebalance waits for the members of the group, and how much of that a running chunk may
# use to finish.
REBALANCE_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = REBALANCE_TIMEOUT_S / 2

# How long the consumer waits for an answer, as the other clients do; in Faust it is 90 s. Whoever
# joins a group has the answer after the rebalance.
_REQUEST_TIMEOUT_S = REBALANCE_TIMEOUT_S + 10

# When the worker stops: how long the running chunks may take to finish, and then the last commit.
STOP_TIMEOUT_S = 3.0
_LAST_COMMIT_TIMEOUT_S = 1.0

# A worker hears of a rebalance with its next heartbeat, and the whole group waits for it. With the
# default, a third of the session timeout, the group would pause for that long.
HEARTBEAT_INTERVAL_S = 0.5

# How often the group's offsets are committed. Only tools that show the lag read them; in every
# transaction they were two of its five requests.
COMMIT_INTERVAL_S = 1.0


class StreamApp(faust.App):
    """A Faust app whose agents receive chunks; a `PartitionDriver` runs each partition.

    It is the `PartitionConsumer` of these drivers, and the `Host` of the worker's other parts.
    """

    logger = logging.getLogger("faust.app")  # for Faust's own lines: logged as a library's
    failure: Fatal | None = None
    cluster: str
    """Id of the Kafka cluster; known before the first partition starts."""

    def __init__(self, app_id: str, settings: Settings, *, group: str | None = None) -> None:
        """Create the app of the workers with this id; their consumer group is ``group``, or it."""
        open_standard_streams()
        self.app_id = f"{settings.namespace}{app_id}"
        name = f"{settings.namespace}{group or app_id}"
        super().__init__(
            name,
            env={},  # the environment that Faust reads its settings from
            broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
            broker_credentials=_credentials(settings),
            Worker=StreamWorker,
            processing_guarantee="exactly_once",
            broker_session_timeout=settings.session_timeout,
            broker_heartbeat_interval=HEARTBEAT_INTERVAL_S,
            broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
            broker_request_timeout=max(_REQUEST_TIMEOUT_S, settings.session_timeout),
            # Only fetches count as polls, and a worker may fetch nothing for hours: an idle
            # standby, or a view while Elasticsearch is down. It would leave the group for good.
            broker_max_poll_interval=10 * 365 * 24 * 3600.0,
            broker_commit_interval=COMMIT_INTERVAL_S,
            broker_max_poll_records=settings.max_chunk_records,
            consumer_auto_offset_reset="earliest",
            topic_allow_declare=False,
            topic_disable_leader=True,
            table_standby_replicas=0,
            stream_wait_empty=False,
            worker_redirect_stdouts=False,
            logging_config=logging_config(settings.log_level, settings.log_format, name),
            web_enabled=False,
            web_bind="127.0.0.1",
            web_in_thread=False,
            # Nothing uses these, but their defaults are from the environment.
            datadir=f"{name}-data",
            web_port=6066,
            web_transport="tcp://",
        )
        self.finalize()  # with FAUST_STRICT set, nothing may read the settings before
        self.settings = settings
        self.partitions = Partitions(
            self, settle_timeout=SETTLE_TIMEOUT_S, max_records=settings.max_chunk_records
        )
        self._topics: list[TopicSpec] = []
        self._rights: list[Right] = []
        self._clients = AsyncExitStack()
        self._open_clients: list[Callable[[AsyncExitStack], Awaitable[None]]] = []

    def input(
        self,
        topic: str,
        topics: Sequence[TopicSpec],
        rights: Sequence[Right],
        new_partition: Callable[[TP], Partition],
    ) -> TopicT:
        """Declare an input topic.

        Args:
            topic: its name.
            topics: what has to exist before the worker joins its group.
            rights: what has to be allowed to the worker by then.
            new_partition: creates what processes one partition of it.

        Returns:
            The channel for an agent, which passes each chunk to ``app.partitions``.
        """
        self._topics.extend(topics)
        self._rights.extend(rights)
        self.partitions.handle(topic, new_partition)
        return self.topic(topic, schema=ChunkSchema(), acks=False)

    def on_open(self, open_clients: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
        """Call ``open_clients`` before the first partition starts.

        What it enters into the exit stack is closed after the last partition.
        """
        self._open_clients.append(open_clients)

    async def on_first_start(self) -> None:
        """Start the health server, if it has a port, and open the clients."""
        await super().on_first_start()
        if self.settings.tracing:
            await self._clients.enter_async_context(tracing.exporting(self.conf.id))
        if self.settings.health_port is not None:
            url = await self._clients.enter_async_context(
                serving_health(self.settings.health_host, self.settings.health_port, self._health())
            )
            logger.info("health: %s", url, extra=about("health-served", url=url))
        for open_clients in self._open_clients:
            await open_clients(self._clients)

    def _health(self) -> Health:
        return Health(
            self.partitions,
            PartitionGauges(self.partitions, self.app_id, self.conf.id, self.settings.partitions),
            consumer_turned=lambda: self._chunk_consumer.turned_at,
            ready_lag=self.settings.ready_lag,
        )

    async def preflight(self) -> None:
        """Check what the worker needs before it joins its group.

        Raises:
            Fatal: Kafka does not respond or refuses this worker, a right or a topic is missing, or
                a topic differs.
        """
        for line in await check_topics(self.settings, self._topics, self._rights):
            logger.warning("%s", line, extra=about("worker-warning"))
        self.cluster = await cluster_id(self.settings)

    def _init_fixups(self) -> list[FixupT]:
        """Use none: Faust's own sets up Django if DJANGO_SETTINGS_MODULE is set."""
        return []

    def _create_directories(self) -> None:
        """Create none: Faust keeps nothing on disk here."""

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_producer, self)

    async def on_stop(self) -> None:
        """Finish or abandon the running chunks, then stop as Faust does."""
        logger.info(
            "stopping; running chunks have %g s to finish",
            STOP_TIMEOUT_S,
            extra=about("worker-stopping"),
        )
        await self.partitions.settle(STOP_TIMEOUT_S)
        if self.partitions.positions():
            with suppress(asyncio.TimeoutError):
                async with async_timeout.timeout(_LAST_COMMIT_TIMEOUT_S):
                    await self._chunk_consumer.commit()
        await self.partitions.close()
        await self._clients.aclose()
        await super().on_stop()

    async def read_from(self, tp: TP, position: int) -> None:
        """Deliver this partition's chunks from ``position`` on."""
        await self._chunk_consumer.seek_to({tp: position})
        self.resume(tp)

    def pause(self, tp: TP) -> None:
        """Stop delivering chunks of this partition."""
        self._chunk_consumer.pause_partitions({tp})

    def resume(self, tp: TP) -> None:
        """Deliver chunks of this partition again, if it is assigned here and ready for them."""
        consumer = self._chunk_consumer
        consumer.resume_partitions({tp} & consumer.assignment())
        consumer.wake()

    async def log_bounds(self, tp: TP) -> tuple[int, int]:
        """Return the first offset on the broker, and the last stable one, where reading ends."""
        return await self._chunk_consumer.log_bounds(tp)

    async def rejoin(self) -> None:
        """Ask the consumer group for a new assignment."""
        await self._chunk_consumer.rejoin()

    async def until_owned(self, tp: TP) -> None:
        """Wait until the group's coordinator confirms that the partition is assigned here."""
        await self._chunk_consumer.until_owned(tp)

    async def refusal(self, error: Exception) -> Fatal | None:
        """Return why Kafka refuses this worker, after this failure; None if it may be an outage."""
        line = advice(error, self.conf.id)
        if line is not None:
            return Fatal(line)
        try:
            if isinstance(error, NOT_ALLOWED):
                await check_rights(self.settings, self._rights)
                return not_allowed(error, self.settings, "Write")
            await check_connection(self.settings)
        except (NotAllowed, Refused) as reason:
            return reason
        except Fatal:
            return None  # no broker answers
        return None

    def fail(self, error: Fatal) -> None:
        """Stop the worker and report this error in one line; callable from any thread.

        Later calls do nothing.
        """
        if self.failure is None:
            self.failure = error
            logger.critical("%s", error, extra=about("worker-failed"))
            if not self.should_stop:
                os.kill(os.getpid(), signal.SIGTERM)

    def _crash(self, reason: BaseException) -> None:
        """Stop the worker: one of Faust's services died, and the others would idle without it."""
        if not self.should_stop:
            if isinstance(reason, NOT_ALLOWED):  # of the consumer: nothing else is a service
                reason = not_allowed(reason, self.settings, "Read")
            line = advice(reason, self.conf.id)
            self.fail(
                reason
                if isinstance(reason, Fatal)
                else Fatal(line or f"a part of the worker failed, the log says where: {reason!r}")
            )
        super()._crash(reason)

    async def _on_agent_error(self, agent: AgentT[Any], error: BaseException) -> None:
        """Stop the worker: an agent only passes chunks on, so an error of it is a defect.

        Faust would skip the chunk.
        """
        log_defect(f"agent {agent.name}", error)
        self.fail(Fatal(f"agent {agent.name} raised {type(error).__name__}; the log says where"))

    @property
    def _chunk_consumer(self) -> ChunkConsumer:
        return cast(Any, self.consumer)  # type: ignore[no-any-return]


def _credentials(
    settings: Settings,
) -> (
    faust.SASLCredentials
    | faust.OAuthCredentials
    | faust.GSSAPICredentials
    | faust.SSLCredentials
    | None
):
    """Return the options of `connection_options` as Faust takes them; None for plaintext."""
    options = connection_options(settings)
    context = options.get("ssl_context")
    if "sasl_oauth_token_provider" in options:
        return faust.OAuthCredentials(
            oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context
        )
    if "sasl_kerberos_service_name" in options:
        return faust.GSSAPICredentials(
            kerberos_service_name=options["sasl_kerberos_service_name"], ssl_context=context
        )
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
