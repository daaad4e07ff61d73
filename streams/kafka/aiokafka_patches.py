"""Changes to aiokafka 0.14, each made on the one client that is passed in.

No module and no class is changed: other producers and consumers in the process stay as they are.
The changes use private names of aiokafka, so its version is pinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.producer.sender import BACKOFF_OVERRIDE, AddPartitionsToTxnHandler
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import DefaultRecord
from aiokafka.structs import TopicPartition

from streams.kafka.batches import BoundedRecords, LenientRecord, UnreadableRecord
from streams.kafka.records import Record

# Wait before a transaction is tried again because the commit markers of the last one are still
# being written. They take 1 or 2 ms; aiokafka waits 20 ms, and has no setting for it.
_MARKERS_WAIT_S = 0.002

# Wait after a failed attempt to connect to a broker. aiokafka has only `retry_backoff_ms`, with
# which the producers of one worker tried a thousand times per second.
_RECONNECT_BACKOFF_S = 0.1


class _AddPartitionsToTxnHandler(AddPartitionsToTxnHandler):  # type: ignore[misc]
    """aiokafka's handler, with a shorter wait for the markers of the last transaction."""

    def handle_response(self, resp: Any) -> float | None:
        wait: float | None = super().handle_response(resp)
        return _MARKERS_WAIT_S if wait == BACKOFF_OVERRIDE else wait


def shorten_wait_for_markers(producer: AIOKafkaProducer) -> None:
    """Let this producer begin a transaction within milliseconds after the one before it."""
    sender = producer._sender

    async def add_partitions(partitions: Any) -> bool:
        node = await sender._find_coordinator(
            CoordinationType.TRANSACTION, sender._txn_manager.transactional_id
        )
        return bool(await _AddPartitionsToTxnHandler(sender, partitions).do(node))

    sender._do_add_partitions_to_txn = add_partitions


def wait_before_reconnecting(producer: AIOKafkaProducer) -> None:
    """Let this producer wait 100 ms after each failed attempt to connect to a broker."""
    connect = producer.client._get_conn

    async def connect_with_backoff(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        if connection is None:
            await asyncio.sleep(_RECONNECT_BACKOFF_S)
        return connection

    producer.client._get_conn = connect_with_backoff


def create_no_topics(client: AIOKafkaClient) -> None:
    """Let no metadata request of this client create a topic.

    aiokafka allows it in every request. Where `auto.create.topics.enable` is set, as it is by
    default, asking about a topic that is missing would create it with the broker's partitions and
    retention.
    """
    connect = client._get_conn

    async def connect_without_creating(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        if connection is not None and "send" not in vars(connection):
            connection.send = partial(_send_without_creating, connection.send)
        return connection

    client._get_conn = connect_without_creating


def _send_without_creating(send: Callable[..., Any], request: Any, **options: Any) -> Any:
    if isinstance(request, MetadataRequest):
        request._allow_auto_topic_creation = False
    return send(request, **options)


def read_within_bounds(consumer: AIOKafkaConsumer) -> None:
    """Let this consumer, which has been started, read batches by `BoundedRecords`.

    It returns `Record`s then; aiokafka's own were 7% of a worker's CPU. The fetcher's
    method stays aiokafka's: it only finds other classes under the names of those that it uses.
    """
    fetcher = consumer._fetcher
    method = type(fetcher)._proc_fetch_request
    names = {
        **method.__globals__,
        "MemoryRecords": BoundedRecords,
        "PartitionRecords": _PartitionRecords,
    }
    fetcher._proc_fetch_request = MethodType(
        FunctionType(method.__code__, names, method.__name__), fetcher
    )


class _PartitionRecords(PartitionRecords):  # type: ignore[misc]
    """aiokafka's iterator over the records of a fetch."""

    def _consumer_record(
        self, tp: TopicPartition, record: DefaultRecord | LenientRecord | UnreadableRecord
    ) -> Record:
        return Record(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(record.headers),
            record.poison if type(record) is UnreadableRecord else None,
        )
