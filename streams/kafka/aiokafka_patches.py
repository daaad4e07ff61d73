"""Changes to aiokafka 0.14, each made on the one client that is passed in.

No module and no class is changed: other producers and consumers in the process stay as they are.
The changes use private names of aiokafka, so its version is pinned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import FunctionType, MethodType
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError, NodeNotReadyError
from aiokafka.producer.sender import (
    BACKOFF_OVERRIDE,
    AddPartitionsToTxnHandler,
    Sender,
    SendProduceReqHandler,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.record.default_records import DefaultRecord
from aiokafka.structs import TopicPartition

from models.errors import PartitionFatal
from streams.kafka.batches import BoundedRecords, LenientRecord, UnreadableRecord
from streams.kafka.records import Record
from streams.logs import name_of

# Wait before a transaction is tried again because the commit markers of the last one are still
# being written. They take 1 or 2 ms; aiokafka waits 20 ms, and has no setting for it.
_MARKERS_WAIT_S = 0.002

# Wait after a failed attempt to connect to a broker; it doubles with each further one, up to the
# maximum. aiokafka has only `retry_backoff_ms`, with which the producers of one worker tried a
# thousand times per second.
_RECONNECT_BACKOFF_S = 0.1
_MAX_RECONNECT_BACKOFF_S = 1.0


# aiokafka repeats what a broker refuses after `retry_backoff_ms`, however often. While a
# transaction is new, refusals are normal and over in milliseconds. From this age on each wait
# doubles, up to a maximum: a broker in trouble got the whole chunk again 200 times per second and
# partition.
_PROMPT_RETRIES_S = 0.1
_MAX_RETRY_BACKOFF_S = 0.5

# Age of a transaction from which on a refusal is logged.
_EXPECTED_REFUSALS_S = 1.0

refusal_is_news: ContextVar[bool] = ContextVar("refusal_is_news", default=False)
"""Whether what aiokafka logs now is a refusal of a transaction that should be over by then."""


class Retries:
    """What a producer has to repeat in its current transaction: for how long, and why."""

    refusal: str | None
    """The partition of which a broker refused records last, and its reason."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a transaction."""
        self._began = time.monotonic()
        self.refusal = None

    @property
    def age(self) -> float:
        """Seconds since the transaction began."""
        return time.monotonic() - self._began

    @property
    def least_wait(self) -> float:
        """Least wait before a retry, in seconds; 0 or less at first.

        It is the time since `_PROMPT_RETRIES_S`, so each wait is twice as long as the one before.
        """
        return min(_MAX_RETRY_BACKOFF_S, self.age - _PROMPT_RETRIES_S)


class _AddPartitionsToTxnHandler(AddPartitionsToTxnHandler):  # type: ignore[misc]
    """aiokafka's handler, with a shorter wait for the markers of the last transaction."""

    def __init__(self, sender: Any, partitions: Any) -> None:
        super().__init__(sender, partitions)
        self._retries: Retries | None = vars(sender).get("retries")

    def handle_response(self, resp: Any) -> float | None:
        wait: float | None = super().handle_response(resp)
        if wait != BACKOFF_OVERRIDE:
            return wait
        return max(_MARKERS_WAIT_S, self._retries.least_wait if self._retries else 0.0)


class _SendProduceReqHandler(SendProduceReqHandler):  # type: ignore[misc]
    """aiokafka's handler, which keeps the reason why records have to be sent again."""

    def __init__(self, sender: Any, batches: Any, retries: Retries) -> None:
        super().__init__(sender, batches)
        self._retries = retries

    def _can_retry(self, error: Exception, batch: Any) -> bool:
        self._retries.refusal = f"{name_of(batch.tp)}: {type(error).__name__}"
        refusal_is_news.set(self._retries.age > _EXPECTED_REFUSALS_S)
        return bool(super()._can_retry(error, batch))


class _Sender(Sender):  # type: ignore[misc]
    """aiokafka's sender; the older its transaction, the longer it waits before it tries again."""

    retries: Retries

    @property
    def _retry_backoff(self) -> float:
        shortest: float = vars(self)["_retry_backoff"]
        return max(shortest, self.retries.least_wait)

    async def _send_produce_req(self, node_id: Any, batches: Any) -> None:
        await _SendProduceReqHandler(self, batches, self.retries).do(node_id)
        self._in_flight.remove(node_id)
        self._muted_partitions.difference_update(batches)


def retry_ever_more_slowly(producer: AIOKafkaProducer) -> Retries:
    """Let this transactional producer double the wait between retries, from 100 ms on.

    Each transaction begins with `retry_backoff_ms` again.
    """
    retries = vars(producer._sender)["retries"] = Retries()
    producer._sender.__class__ = _Sender
    # For topics that brokers do not know; nothing there needs a short wait.
    producer.client._retry_backoff = _RECONNECT_BACKOFF_S
    begin = producer.begin_transaction

    async def begin_transaction() -> None:
        retries.begin()
        await begin()

    producer.begin_transaction = begin_transaction
    return retries


def end_transactions_once(producer: AIOKafkaProducer) -> None:
    """Let this producer fail if the answer to the end of a transaction is lost.

    aiokafka sends the request again, with the same epoch, and goes on. If the first one arrives
    after all, it ends the next transaction, of which only a part may be written (KIP-890). A new
    producer has another epoch, for which what is late is refused.
    """
    send = producer.client.send

    async def send_once(node_id: Any, request: Any, **options: Any) -> Any:
        try:
            return await send(node_id, request, **options)
        except NodeNotReadyError:
            raise  # it was not sent
        except KafkaError as error:
            if isinstance(request, EndTxnRequest):
                producer._txn_manager.fatal_error(error)
            raise

    producer.client.send = send_once


def shorten_wait_for_markers(producer: AIOKafkaProducer) -> None:
    """Let this producer begin a transaction within milliseconds after the one before it."""
    sender = producer._sender

    async def add_partitions(partitions: Any) -> bool:
        node = await sender._find_coordinator(
            CoordinationType.TRANSACTION, sender._txn_manager.transactional_id
        )
        return bool(await _AddPartitionsToTxnHandler(sender, partitions).do(node))

    sender._do_add_partitions_to_txn = add_partitions


def wait_before_reconnecting(client: AIOKafkaClient) -> None:
    """Let this client wait after each failed attempt to connect to a broker, ever longer."""
    connect = client._get_conn
    wait_of: dict[Any, float] = {}

    async def connect_with_backoff(node: Any, **kwargs: Any) -> Any:
        connection = await connect(node, **kwargs)
        if connection is not None:
            wait_of.pop(node, None)
            return connection
        wait = wait_of.get(node, _RECONNECT_BACKOFF_S)
        wait_of[node] = min(2 * wait, _MAX_RECONNECT_BACKOFF_S)
        await asyncio.sleep(wait)
        return None

    client._get_conn = connect_with_backoff


def read_within_bounds(consumer: AIOKafkaConsumer) -> None:
    """Let this consumer, which has been started, read batches by `BoundedRecords`.

    It returns `Record`s then; aiokafka's own were 7% of a worker's CPU. The fetcher's
    method stays aiokafka's: it only finds other classes under the names of those that it uses.

    Where the log is damaged, what precedes that is returned; then it raises `PartitionFatal`.
    """
    fetcher = consumer._fetcher
    send = consumer._client.send

    async def send_and_look(node_id: Any, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            _report_damage(fetcher, request, response)
        return response

    consumer._client.send = send_and_look
    fetcher._proc_fetch_request = finding(
        fetcher._proc_fetch_request,
        {"MemoryRecords": BoundedRecords, "PartitionRecords": _PartitionRecords},
    )


def _report_damage(fetcher: Fetcher, request: FetchRequest, response: Any) -> None:
    """Let the fetcher raise what a broker says of a batch that it cannot find the end of.

    aiokafka logs it and asks again at once, for ever.
    """
    damaged = {
        TopicPartition(topic, number)
        for topic, partitions in response.topics
        for number, error, *_ in partitions
        if error == CorruptRecordException.errno
    }
    subscription = fetcher._subscriptions.subscription
    if not damaged or subscription is None or subscription.assignment is None:
        return
    for topic, partitions in request.topics:
        for number, offset, _ in partitions:
            tp = TopicPartition(topic, number)
            if tp not in damaged or tp not in subscription.assignment.tps or tp in fetcher._records:
                continue
            state = subscription.assignment.state_value(tp)
            if state.has_valid_position and state.position == offset:
                fetcher._set_error(tp, _damaged(tp, offset))
                for waiter in fetcher._fetch_waiters:
                    fetcher._notify(waiter)


def _damaged(tp: TopicPartition, offset: int) -> PartitionFatal:
    return PartitionFatal(
        f"{name_of(tp)} is damaged on its broker: what it holds from offset {offset} on is not "
        "what was written; let another replica lead the partition (docs/operating.md)"
    )


def finding(method: MethodType, names: Mapping[str, Any]) -> MethodType:
    """Return the method, which finds these functions and classes in place of its module's."""
    function = cast("FunctionType", method.__func__)
    other = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
    other.__defaults__ = function.__defaults__
    other.__kwdefaults__ = function.__kwdefaults__
    return MethodType(other, method.__self__)


class _PartitionRecords(PartitionRecords):  # type: ignore[misc]
    """aiokafka's iterator over the records of a fetch."""

    def _unpack_records(self) -> Iterator[Any]:
        """Yield the records up to one that cannot be read; the next fetch begins there, and raises.

        aiokafka raises at once, and those that it has unpacked before are lost with the error.

        Raises:
            PartitionFatal: The first batch is damaged.
        """
        start = self.next_fetch_offset
        try:
            yield from super()._unpack_records()
        except Exception as error:
            if self.next_fetch_offset > start:
                return
            if not isinstance(error, CorruptRecordException):
                raise
            raise _damaged(self._tp, start) from error

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
