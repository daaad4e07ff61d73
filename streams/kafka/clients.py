"""Kafka clients: created with the options that all of them share, started and stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import async_timeout
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_fixed

from models.errors import Fatal
from streams.kafka.aiokafka_patches import (
    read_within_bounds,
    shorten_wait_for_markers,
    wait_before_reconnecting,
)
from streams.kafka.connections import Connection, use_own_connections
from streams.kafka.refusal import Refused, Unreachable, refusal
from streams.kafka.sasl import sasl_options
from streams.settings import Settings
from streams.tls import tls_context

# aiokafka logs every failed attempt, and Python prints that where no logging is configured. The
# errors that are raised say the same, so only programs that configure logging get the log lines.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

# Largest record that a producer may send; the output topics accept 4 MiB.
MAX_REQUEST_BYTES = 5 * 1024 * 1024

# Size up to which a batch is filled. A larger record is sent in a batch of its own.
BATCH_BYTES = 512 * 1024

# Least time without progress after which reading a log to its end fails.
_STALL_TIMEOUT_S = 60.0

# Time that a client has to stop cleanly.
_STOP_TIMEOUT_S = 2.0

# Wait of aiokafka before it repeats a request that the broker was not ready for. The broker may
# refuse one while it verifies a new transaction: with the default of 100 ms, that is the latency.
RETRY_BACKOFF_MS = 5

# Time that one broker has to answer the first request.
_ANSWER_TIMEOUT_S = 8.0

# Time that a broker which accepts connections has to join its cluster.
_JOIN_TIMEOUT_S = 10.0


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return the options with which every client connects, credentials included.

    Raises:
        Fatal: a file of the settings cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security.upper(),
    }
    if settings.kafka_security in {"ssl", "sasl_ssl"}:
        options["ssl_context"] = tls_context(
            "CQRS_KAFKA",
            settings.kafka_ca_file,
            settings.kafka_cert_file,
            settings.kafka_key_file,
            settings.secret("kafka_key_password"),
        )
    if settings.kafka_security.startswith("sasl_"):
        options |= sasl_options(settings)
    return options


class _Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer that whatever is on a topic costs bounded memory."""

    stall_timeout_s: float
    """Seconds without progress, before the end of a log, after which reading it fails."""

    async def start(self) -> None:
        await super().start()
        read_within_bounds(self)


def new_consumer(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """Create a consumer that reads committed records and belongs to no group."""
    consumer = _Consumer(
        **connection_options(settings),
        **{
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "max_partition_fetch_bytes": 4 * 1024 * 1024,
            **options,
        },
    )
    # Longer than a transaction of this deployment may stay open: what follows it is hidden.
    consumer.stall_timeout_s = max(_STALL_TIMEOUT_S, 2 * settings.transaction_timeout)
    use_own_connections(consumer._client)
    wait_before_reconnecting(consumer._client)
    return consumer


def new_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """Create a producer whose records are acknowledged by all in-sync replicas.

    It compresses its batches as the settings say.
    """
    producer = AIOKafkaProducer(
        **connection_options(settings),
        **{
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": None if settings.compression == "none" else settings.compression,
            "max_request_size": MAX_REQUEST_BYTES,
            "max_batch_size": BATCH_BYTES,
            **options,
        },
    )
    use_own_connections(producer.client)
    shorten_wait_for_markers(producer)
    wait_before_reconnecting(producer.client)
    return producer


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client.

    Raises:
        Fatal: no broker answers, or takes this client, or none has joined its cluster.
    """
    client = await _connected_admin(settings)
    try:
        yield client
    except (KafkaConnectionError, NodeNotReadyError):
        raise await not_connected(settings) from None
    finally:
        await client.close()


async def cluster_id(settings: Settings) -> str:
    """Return the id of the Kafka cluster: the same at all brokers, and it never changes.

    Raises:
        Fatal: no broker answers.
    """
    async with admin_client(settings) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


async def _connected_admin(settings: Settings) -> AIOKafkaAdminClient:
    """Return a started admin client that knows at least one broker.

    A broker that has just started, or was suspended, accepts connections before it has joined its
    cluster. A client that connects at that moment learns of no broker that it could ask.
    """
    servers = settings.bootstrap_servers.split(",")
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(NodeNotReadyError),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(_JOIN_TIMEOUT_S),
            reraise=True,
        ):
            with attempt:
                client = AIOKafkaAdminClient(
                    **connection_options(settings), request_timeout_ms=10_000
                )
                use_own_connections(client._client)
                try:
                    async with async_timeout.timeout(_ANSWER_TIMEOUT_S * len(servers)):
                        await client.start()
                    if not client._client.cluster.brokers():
                        raise NodeNotReadyError
                except BaseException:  # also if it is cancelled, by a deadline for instance
                    await client.close()
                    raise
    except (KafkaConnectionError, NodeNotReadyError):
        raise await not_connected(settings) from None
    except asyncio.TimeoutError:
        raise Unreachable(
            f"Kafka does not answer at {settings.bootstrap_servers}: it takes connections, so look "
            "at its log, or set CQRS_BOOTSTRAP_SERVERS"
        ) from None
    return client


@asynccontextmanager
async def started(client: Any, settings: Settings) -> AsyncIterator[Any]:
    """Start a producer or consumer, and stop it at the end of the block.

    Raises:
        Fatal: no broker answers or takes this client.
    """
    try:
        try:
            await client.start()
        except KafkaConnectionError:
            raise await not_connected(settings) from None
        yield client
    finally:
        await stop(client)


async def stop(client: Any) -> None:
    """Stop a producer or consumer cleanly; after 2 s just cancel that and close its connections.

    While a broker is down, aiokafka 0.14 does not stop by itself: an idempotent producer waits
    forever for its last batches, and a consumer may raise the CancelledError of a fetch that was
    about to be repeated, as if the caller had been cancelled.
    """
    stopping = asyncio.create_task(client.stop())
    try:
        await asyncio.wait({stopping}, timeout=_STOP_TIMEOUT_S)
    finally:
        if not stopping.done() or stopping.cancelled():
            stopping.cancel()
            await asyncio.gather(stopping, _disconnect(client), return_exceptions=True)
    if not stopping.cancelled():
        stopping.result()


async def _disconnect(client: Any) -> None:
    """Close the connections of a client that does not stop, and end the tasks of a producer."""
    if not isinstance(client, AIOKafkaProducer):
        await _close(client._client)
        return
    tasks = _tasks_of(client)
    for task in tasks:
        task.cancel()
    await _close(client.client)
    if tasks:
        await asyncio.wait(tasks, timeout=_STOP_TIMEOUT_S)
        await _close(client.client)  # one of them may have connected again


async def _close(client: AIOKafkaClient) -> None:
    """Close a client's connections now. It may have been cancelled while it awaited their ends."""
    for node in client._conns:
        connection: Connection = client._conns[node]
        connection.close(CloseReason.SHUTDOWN)  # first: else it is taken for one that broke
        connection.abort()
    await asyncio.gather(client.close(), return_exceptions=True)


def _tasks_of(producer: AIOKafkaProducer) -> set[asyncio.Task[Any]]:
    """Return the tasks that send and flush for a producer; aiokafka keeps only one of them."""
    owners = (producer._sender, producer._message_accumulator)
    found = set()
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        names = {} if frame is None else frame.f_locals
        owner = names.get("self", names.get("sender"))
        if any(owner is one for one in owners):
            found.add(task)
    return found


async def not_connected(settings: Settings) -> Fatal:
    """Build the one-line error for brokers that a client could not connect to: the true reason."""
    return await refusal(settings, connection_options(settings)) or Unreachable(
        f"Kafka does not answer at {settings.bootstrap_servers}: start it (`cqrs dev` starts a "
        "local one) or set CQRS_BOOTSTRAP_SERVERS"
    )


async def check_connection(settings: Settings) -> None:
    """Check that no broker refuses this client; that none answers is no refusal.

    Raises:
        Refused: one does, and the line says why.
    """
    found = await refusal(settings, connection_options(settings))
    if isinstance(found, Refused):
        raise found
