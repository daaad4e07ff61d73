"""A refused batch is the last that a partition does not take, with aiokafka's own producer."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import async_timeout
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
)
from aiokafka.protocol.produce import ProduceRequest

from deploy.waiting import wait_until
from models.errors import Fatal
from streams.kafka import clients, lasting_producer
from streams.kafka.lasting_producer import LastingProducer
from streams.settings import Settings

TOPIC = "users.commands.v1"

# Of a record batch: where the id of its producer begins, which is followed by epoch and sequence.
_PRODUCER = struct.Struct(">qhi")
_PRODUCER_AT = 43


class Broker:
    """Takes of each producer and partition the batches without a gap, as Kafka does."""

    def __init__(self) -> None:
        self.producers: list[AIOKafkaProducer] = []
        self.refuses: dict[int, type[KafkaError]] = {}  # by partition
        self.held: dict[int, asyncio.Event] = {}  # answers, by partition
        self.bootstraps = 0
        self.bootstrap: asyncio.Future[None] | None = None
        self._ids = 0
        self._next: dict[tuple[int, int], int] = {}

    def new_producer(self, _settings: Settings) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(enable_idempotence=True, acks="all", retry_backoff_ms=1)
        client = producer.client
        client.bootstrap, client.send = self._bootstrap, self._send
        client._wait_on_metadata = self._know
        client.cluster.partitions_for_topic = lambda _topic: {0, 1}
        client.cluster.leader_for_partition = lambda tp: tp.partition  # a node for each
        client.get_random_node = lambda: 0
        self.producers.append(producer)
        return producer

    async def _know(self, _topic: str) -> None: ...

    async def _bootstrap(self) -> None:
        self.bootstraps += 1
        if self.bootstrap is not None:
            await self.bootstrap

    async def _send(self, _node: int, request: Any, **_options: Any) -> Any:
        if not isinstance(request, ProduceRequest):
            self._ids += 1
            return SimpleNamespace(error_code=0, producer_id=self._ids, producer_epoch=0)
        ((topic, ((partition, batch),)),) = request._topics
        if partition in self.held:
            await self.held[partition].wait()
        answer = (partition, self._take(partition, batch), 0, -1, 0)
        return SimpleNamespace(API_VERSION=7, topics=[(topic, [answer])])

    def _take(self, partition: int, batch: bytes) -> int:
        producer, _, sequence = _PRODUCER.unpack_from(batch, _PRODUCER_AT)
        if partition in self.refuses:
            return self.refuses[partition].errno  # type: ignore[no-any-return]
        if sequence != self._next.get((producer, partition), 0):
            return OutOfOrderSequenceNumber.errno  # type: ignore[no-any-return]
        self._next[producer, partition] = sequence + 1
        return 0


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(lasting_producer, "new_producer", broker.new_producer)
    monkeypatch.setattr(clients, "_STOP_TIMEOUT_S", 0.2)
    return broker


async def send(lasting: LastingProducer, partition: int = 0) -> None:
    async with async_timeout.timeout(10), lasting.use() as producer:
        await producer.send_and_wait(TOPIC, b"v", b"k", partition=partition)


def failed_with(error: KafkaError) -> asyncio.Future[None]:
    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(error)
    return failed


async def test_aiokafka_never_closes_the_gap_behind_a_refused_batch(broker: Broker) -> None:
    """What `LastingProducer` is for: if this fails, it is not needed any more."""
    async with broker.new_producer(Settings()) as producer:
        await producer.send_and_wait(TOPIC, b"v", partition=0)
        broker.refuses = {0: InvalidTimestampError}
        with pytest.raises(InvalidTimestampError):
            await producer.send_and_wait(TOPIC, b"v", partition=0)
        broker.refuses = {}
        for _ in range(3):
            with pytest.raises(OutOfOrderSequenceNumber):
                await producer.send_and_wait(TOPIC, b"v", partition=0)


async def test_after_a_refused_batch_the_next_one_is_taken(broker: Broker) -> None:
    async with LastingProducer(Settings()) as lasting:
        for partition in (0, 1, 0):
            await send(lasting, partition)
        assert len(broker.producers) == 1
        broker.refuses = {0: InvalidTimestampError}
        with pytest.raises(InvalidTimestampError):
            await send(lasting)
        broker.refuses = {}
        for partition in (0, 1, 0, 1):
            await send(lasting, partition)
        former, _ = broker.producers
        await wait_until(lambda: former._closed)
    assert all(one._closed for one in broker.producers)


async def test_who_uses_the_former_producer_gets_an_answer(broker: Broker) -> None:
    async with LastingProducer(Settings()) as lasting:
        broker.held[1] = asyncio.Event()
        waiting = asyncio.create_task(send(lasting, 1))
        broker.refuses = {0: InvalidTimestampError}
        with pytest.raises(InvalidTimestampError):
            await send(lasting)
        broker.refuses = {}
        await send(lasting)
        former, _ = broker.producers
        assert not former._closed
        broker.held.pop(1).set()
        await waiting
        await wait_until(lambda: former._closed)


async def test_many_who_fail_get_one_new_producer(broker: Broker) -> None:
    async with LastingProducer(Settings()) as lasting:
        await send(lasting)
        broker.refuses = {0: InvalidTimestampError}
        failed = await asyncio.gather(*(send(lasting) for _ in range(9)), return_exceptions=True)
        assert {type(one) for one in failed} == {InvalidTimestampError}
        broker.refuses = {}
        await asyncio.gather(*(send(lasting) for _ in range(9)))
        assert len(broker.producers) == 2


async def test_a_new_producer_that_cannot_be_started_is_tried_again(broker: Broker) -> None:
    """As while the right to write, without which there is no id for a producer, is missing."""
    async with LastingProducer(Settings()) as lasting:
        broker.refuses = {0: InvalidTimestampError}
        with pytest.raises(InvalidTimestampError):
            await send(lasting)
        broker.bootstrap = failed_with(ClusterAuthorizationFailedError())
        failed = await asyncio.gather(*(send(lasting) for _ in range(9)), return_exceptions=True)
        assert {type(one) for one in failed} == {ClusterAuthorizationFailedError}
        assert broker.bootstraps == 2  # one attempt for all who wait
        broker.refuses, broker.bootstrap = {}, None
        await send(lasting)
    assert all(one._closed for one in broker.producers)


async def test_closing_while_a_new_one_starts_cancels_nobody(broker: Broker) -> None:
    async with LastingProducer(Settings()) as lasting:
        broker.refuses = {0: InvalidTimestampError}
        with pytest.raises(InvalidTimestampError):
            await send(lasting)
        broker.bootstrap = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(send(lasting))
        await wait_until(lambda: broker.bootstraps == 2)
    with pytest.raises(ProducerClosed):
        await waiting
    with pytest.raises(ProducerClosed):
        await send(lasting)
    assert all(one._closed for one in broker.producers)


async def test_no_broker_at_the_beginning_is_one_line(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def line(_settings: Settings) -> Fatal:
        return Fatal("Kafka does not answer")

    monkeypatch.setattr(lasting_producer, "not_connected", line)
    broker.bootstrap = failed_with(KafkaConnectionError())
    with pytest.raises(Fatal, match="Kafka does not answer"):
        async with LastingProducer(Settings()):
            pass
