"""What is changed of aiokafka 0.14, each for the one object that it is given.

Nothing here touches a module or a class: other producers and consumers of the same process stay as
they are. `tests/unit/test_private_names.py` says which private names this rests on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.producer import sender
from aiokafka.structs import TopicPartition

from streams.kafka.records import FetchedRecord

# Seconds before a transaction is tried again while the markers of the last one are being written.
# That takes a millisecond or two; aiokafka waits 20 ms, and has no setting for it.
_MARKERS_WAIT_S = 0.002

# Seconds until a broker that cannot be reached is tried again. aiokafka knows only its
# `retry_backoff_ms`, with which the producers of one worker tried a thousand times per second.
_RECONNECT_BACKOFF_S = 0.1


class _AddPartitionsToTxnHandler(sender.AddPartitionsToTxnHandler):  # type: ignore[misc]
    """aiokafka's, with a shorter wait for the last transaction's markers."""

    def handle_response(self, resp: Any) -> float | None:
        wait: float | None = super().handle_response(resp)
        return _MARKERS_WAIT_S if wait == sender.BACKOFF_OVERRIDE else wait


def shorten_wait_for_markers(producer: AIOKafkaProducer) -> None:
    """Let a transaction of this producer follow the one before it within milliseconds."""
    its = producer._sender

    async def add_partitions(partitions: Any) -> bool:
        node = await its._find_coordinator(
            sender.CoordinationType.TRANSACTION, its._txn_manager.transactional_id
        )
        return bool(await _AddPartitionsToTxnHandler(its, partitions).do(node))

    its._do_add_partitions_to_txn = add_partitions


def wait_before_reconnecting(producer: AIOKafkaProducer) -> None:
    """Let this producer try a broker that cannot be reached ten times per second at most."""
    connect = producer.client._get_conn

    async def connect_patiently(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        if connection is None:
            await asyncio.sleep(_RECONNECT_BACKOFF_S)
        return connection

    producer.client._get_conn = connect_patiently


def yield_fetched_records(result: FetchResult) -> None:
    """Let a fetch give `FetchedRecord`s; aiokafka's own records were 7% of a worker's CPU."""
    result._partition_records._consumer_record = _fetched_record


def _fetched_record(tp: TopicPartition, record: Any) -> FetchedRecord:
    return FetchedRecord(
        tp.topic,
        tp.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
