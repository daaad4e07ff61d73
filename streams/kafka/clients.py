"""How this project connects to Kafka: one place for what every client has in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_fixed

from models.errors import Fatal
from streams.kafka.aiokafka_patches import shorten_wait_for_markers, wait_before_reconnecting
from streams.settings import Settings

# It logs every failed attempt, and what is raised says it again: only who sets up logging sees it.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

# The largest record a producer may write (outputs' topics allow 4 MiB), and the size that a batch
# is filled to. A record larger than that travels in a batch of its own.
MAX_REQUEST_BYTES = 5 * 1024 * 1024
BATCH_BYTES = 512 * 1024

# Seconds that a client gets to stop in good order.
_STOP_TIMEOUT = 2.0

# aiokafka waits this long after a refusal that only asks for patience, of which the broker's
# transaction check sends one per new transaction: at the default of 100 ms it is the latency.
RETRY_BACKOFF_MS = 5

# Seconds that a broker which answers has until its cluster lets it in.
_LET_IN = 10.0


def connection(settings: Settings) -> dict[str, Any]:
    """What every client needs to connect; security settings will join here."""
    return {"bootstrap_servers": settings.bootstrap_servers.split(",")}


def new_consumer(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """A reader of committed records that belongs to no group."""
    return AIOKafkaConsumer(
        **connection(settings),
        **{
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "max_partition_fetch_bytes": 4 * 1024 * 1024,
            **options,
        },
    )


def new_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """A producer whose records are acknowledged by all in-sync replicas."""
    producer = AIOKafkaProducer(
        **connection(settings),
        **{
            "acks": "all",
            "enable_idempotence": True,
            "max_request_size": MAX_REQUEST_BYTES,
            "max_batch_size": BATCH_BYTES,
            **options,
        },
    )
    shorten_wait_for_markers(producer)
    wait_before_reconnecting(producer)
    return producer


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client.

    Raises:
        Fatal: no broker answers, or none that is ready to.
    """
    client = await _connected_admin(settings)
    try:
        yield client
    except (KafkaConnectionError, NodeNotReadyError):
        raise unreachable(settings) from None
    finally:
        await client.close()


async def cluster_id(settings: Settings) -> str:
    """What the brokers call their cluster: the same for all of them, and for all its life.

    Raises:
        Fatal: no broker answers.
    """
    async with admin_client(settings) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


async def _connected_admin(settings: Settings) -> AIOKafkaAdminClient:
    """A client that knows a broker.

    One that has just started, or was suspended, answers before its cluster has let it in, and a
    client that connects in that moment knows nobody whom it could ask anything.
    """
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(NodeNotReadyError),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(_LET_IN),
            reraise=True,
        ):
            with attempt:
                client = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=10_000)
                await client.start()
                if not client._client.cluster.brokers():
                    await client.close()
                    raise NodeNotReadyError
    except (KafkaConnectionError, NodeNotReadyError):
        await client.close()
        raise unreachable(settings) from None
    return client


@asynccontextmanager
async def started(client: Any, settings: Settings) -> AsyncIterator[Any]:
    """Start a producer or consumer and stop it at the end.

    Raises:
        Fatal: no broker answers.
    """
    try:
        await client.start()
    except KafkaConnectionError:
        await stop(client)
        raise unreachable(settings) from None
    try:
        yield client
    finally:
        await stop(client)


async def stop(client: Any) -> None:
    """Stop a producer or consumer in good order, or else, after a few seconds, anyhow.

    While a broker is down, aiokafka 0.14 does not stop by itself: an idempotent producer waits for
    its last batches without end, and a consumer may raise the CancelledError of a fetch that was
    about to be repeated, which looks as if whoever awaits it had been cancelled.
    """
    stopping = asyncio.create_task(client.stop())
    try:
        await asyncio.wait({stopping}, timeout=_STOP_TIMEOUT)
    finally:
        if not stopping.done() or stopping.cancelled():
            stopping.cancel()
            await asyncio.gather(stopping, _disconnect(client), return_exceptions=True)
    if not stopping.cancelled():
        stopping.result()


async def _disconnect(client: Any) -> None:
    if isinstance(client, AIOKafkaProducer):
        if client._sender.sender_task is not None:
            client._sender.sender_task.cancel()
        await client.client.close()
    else:
        await client._client.close()


def unreachable(settings: Settings) -> Fatal:
    """The one line for a broker that does not answer."""
    return Fatal(
        f"Kafka does not answer at {settings.bootstrap_servers}: start it (`cqrs up` starts a "
        "local one) or set CQRS_BOOTSTRAP_SERVERS"
    )
