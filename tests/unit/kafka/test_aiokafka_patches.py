"""What is changed of aiokafka is changed for our own clients, and for those of nobody else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CorruptRecordException,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
)
from aiokafka.producer import sender
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import ConsumerRecord, TopicPartition

from models.errors import PartitionFatal
from streams.kafka import aiokafka_patches
from streams.kafka.aiokafka_patches import (
    Retries,
    end_transactions_once,
    read_within_bounds,
    retry_ever_more_slowly,
    wait_before_reconnecting,
)
from streams.kafka.clients import new_producer
from streams.kafka.records import Record
from streams.settings import Settings

TP = TopicPartition("users.events.v1", 3)
TIME_MS = 1_763_899_200_123

# Every attribute of every module and class of aiokafka, before this project is imported and after.
_COMPARE = """
import importlib, pkgutil, sys
import aiokafka

for module in pkgutil.walk_packages(aiokafka.__path__, "aiokafka."):
    importlib.import_module(module.name)

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "aiokafka":
            owners = [module, *(v for v in vars(module).values() if isinstance(v, type))]
            for owner in owners:
                place = name if owner is module else f"{owner.__module__}.{owner.__qualname__}"
                found.update({(place, key): value for key, value in vars(owner).items()})
    return found

before = attributes()
import agents.client, streams.kafka.clients
after = attributes()
print(len(before))
print(*sorted(
    ".".join(key)
    for key in before.keys() | after.keys()
    if key not in before or key not in after or before[key] is not after[key]
))
"""


def test_importing_this_project_changes_nothing_of_aiokafka() -> None:
    compared = subprocess.run(
        [sys.executable, "-c", _COMPARE], check=True, capture_output=True, text=True, timeout=60
    )
    compared_attributes, changed = compared.stdout.split("\n", 1)
    assert int(compared_attributes) > 1000
    assert changed.split() == []


@pytest.fixture
async def ours() -> AsyncIterator[AIOKafkaProducer]:
    producer = new_producer(Settings(), transactional_id="ours")
    yield producer
    await producer.stop()


@pytest.fixture
async def plain() -> AsyncIterator[AIOKafkaProducer]:
    """One that somebody else makes in the same process."""
    producer = AIOKafkaProducer(transactional_id="plain")
    yield producer
    await producer.stop()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were asked for; nobody waits for them."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return asked


async def add_a_partition(producer: AIOKafkaProducer, answer: int) -> bool:
    """Let a producer add a partition to its transaction, for which the broker has this code."""

    async def coordinator(*_: Any) -> int:
        return 1

    async def send(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(errors=[(TP.topic, [(TP.partition, answer)])])

    producer._sender._find_coordinator = coordinator
    producer.client.send = send
    return bool(await producer._sender._do_add_partitions_to_txn({TP}))


async def test_only_our_producer_waits_less_for_the_markers_of_the_last_transaction(
    ours: AIOKafkaProducer, plain: AIOKafkaProducer, waits: list[float]
) -> None:
    assert not await add_a_partition(ours, ConcurrentTransactions.errno)
    assert not await add_a_partition(plain, ConcurrentTransactions.errno)
    assert waits == [0.002, sender.BACKOFF_OVERRIDE]


async def test_our_producer_waits_as_long_as_any_for_everything_else(
    ours: AIOKafkaProducer, plain: AIOKafkaProducer, waits: list[float]
) -> None:
    assert not await add_a_partition(ours, CoordinatorLoadInProgressError.errno)
    assert not await add_a_partition(plain, CoordinatorLoadInProgressError.errno)
    assert waits == [0.1, 0.1]  # `retry_backoff_ms`


class Clock:
    """Time, which passes when the test says so."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(aiokafka_patches, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def retries(ours: AIOKafkaProducer, clock: Clock) -> Retries:
    """Make ours the producer of a partition."""
    vars(ours._sender)["_retry_backoff"] = 0.005
    return retry_ever_more_slowly(ours)


async def test_each_wait_of_a_transaction_is_twice_as_long_as_the_one_before(
    ours: AIOKafkaProducer, clock: Clock, retries: Retries
) -> None:
    waits = []
    while clock.now < 1003:
        waits.append(ours._sender._retry_backoff)
        clock.now += waits[-1]
    assert waits[:20] == pytest.approx([0.005] * 20)
    assert len(waits) < 40
    assert waits[-1] == 0.5
    assert all(after <= 2.1 * before for before, after in pairwise(waits))


async def test_every_transaction_begins_with_short_waits(
    ours: AIOKafkaProducer, clock: Clock, retries: Retries
) -> None:
    ours._txn_manager.set_pid_and_epoch(1, 0)
    retries.refusal = "users.events.v1[0]: NotEnoughReplicasError"
    clock.now += 60
    assert ours._sender._retry_backoff == 0.5
    await ours.begin_transaction()
    assert ours._sender._retry_backoff == 0.005
    assert retries.refusal is None


async def test_the_markers_of_the_last_transaction_are_waited_for_ever_more_slowly(
    ours: AIOKafkaProducer, clock: Clock, retries: Retries, waits: list[float]
) -> None:
    assert not await add_a_partition(ours, ConcurrentTransactions.errno)
    clock.now += 60
    assert not await add_a_partition(ours, ConcurrentTransactions.errno)
    assert waits == [0.002, 0.5]


async def test_only_our_producer_waits_before_it_tries_a_broker_again(
    ours: AIOKafkaProducer, plain: AIOKafkaProducer, waits: list[float]
) -> None:
    unknown = 7
    assert await plain.client._get_conn(unknown) is None
    assert waits == []
    for _ in range(6):
        assert await ours.client._get_conn(unknown) is None
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


async def test_a_broker_that_was_reached_is_tried_soon_again(
    plain: AIOKafkaProducer, waits: list[float]
) -> None:
    """And each broker has a wait of its own."""
    answers: list[Any] = [None, None, object(), None]

    async def connect(node: int, **_: Any) -> Any:
        return answers.pop(0) if node == 7 else None

    plain.client._get_conn = connect
    wait_before_reconnecting(plain.client)
    for node in (7, 7, 8, 7, 7):
        await plain.client._get_conn(node)
    assert waits == [0.1, 0.2, 0.1, 0.1]


async def test_only_our_consumer_reads_within_bounds() -> None:
    """And a fetch of it is aiokafka's own in everything else."""
    ours, theirs = new_fetcher(), new_fetcher()
    read_within_bounds(cast("Any", SimpleNamespace(_fetcher=ours, _client=ours._client)))
    assert await fetched(ours) == [
        Record(TP.topic, TP.partition, 0, TIME_MS, b"key", b"value", (("name", b"x"),))
    ]
    (record,) = await fetched(theirs)
    assert type(record) is ConsumerRecord
    assert (record.offset, record.value) == (0, b"value")


@pytest.mark.parametrize(("position", "is_told"), [(0, True), (5, False), (None, False)])
async def test_a_broker_that_finds_a_batch_damaged_is_heard(
    position: int | None, is_told: bool
) -> None:
    """aiokafka logs it and asks again at once; who has been sent elsewhere is not concerned."""
    fetcher, waiter = new_fetcher(), asyncio.get_running_loop().create_future()
    fetcher._client = SimpleNamespace(send=answer_damaged)
    fetcher._fetch_waiters = {waiter}
    state = SimpleNamespace(has_valid_position=position is not None, position=position)
    assignment = SimpleNamespace(active=True, tps={TP}, state_value=lambda _: state)
    subscription = SimpleNamespace(assignment=assignment)
    fetcher._subscriptions = SimpleNamespace(subscription=subscription)
    fetcher._preferred_read_replica = {}
    consumer = SimpleNamespace(_fetcher=fetcher, _client=fetcher._client)
    read_within_bounds(cast("Any", consumer))
    request = FetchRequest(50, 1, 1 << 20, READ_COMMITTED, [(TP.topic, [(TP.partition, 0, 1)])])
    assert not await fetcher._proc_fetch_request(assignment, 1, request)
    assert (TP in fetcher._records, waiter.done()) == (is_told, is_told)
    if is_told:
        with pytest.raises(
            PartitionFatal, match=r"^users\.events\.v1\[3\] is damaged .* offset 0 "
        ):
            fetcher._records[TP].check_raise()


async def answer_damaged(_node: int, _request: Any) -> SimpleNamespace:
    """What a broker answers that has found no batch at the offset."""
    data: tuple[Any, ...] = (CorruptRecordException.errno, -1, -1, -1, [], b"")
    return SimpleNamespace(API_VERSION=5, topics=[(TP.topic, [(TP.partition, *data)])])


def new_fetcher() -> Fetcher:
    """A fetcher without its tasks, whose broker has one record."""
    fetcher = Fetcher.__new__(Fetcher)
    fetcher._client = SimpleNamespace(send=answer_with_one_record)
    fetcher._client_rack = fetcher._key_deserializer = fetcher._value_deserializer = None
    fetcher._records = {}
    fetcher._check_crcs = True
    fetcher._isolation_level = READ_COMMITTED
    fetcher._prefetch_backoff = 0.1
    return fetcher


async def answer_with_one_record(_node: int, _request: Any) -> SimpleNamespace:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1000)
    builder.append(0, TIME_MS, b"key", b"value", [("name", b"x")])
    data: tuple[Any, ...] = (1, 0, [], bytes(builder.build()))
    return SimpleNamespace(API_VERSION=5, topics=[(TP.topic, [(TP.partition, 0, 1, *data)])])


async def fetched(fetcher: Fetcher) -> list[Any]:
    """What a fetch returns."""
    position = SimpleNamespace(has_valid_position=True, position=0, paused=False)
    position.consumed_to = lambda offset: setattr(position, "position", offset)
    assignment = SimpleNamespace(active=True, state_value=lambda _: position)
    request = SimpleNamespace(topics=[(TP.topic, [(TP.partition, 0, 1 << 20)])])
    assert await fetcher._proc_fetch_request(assignment, 1, request)
    return list(fetcher._records[TP].getall())


async def end_of_a_transaction(
    producer: AIOKafkaProducer, error: KafkaError
) -> asyncio.Future[None]:
    """Let a producer commit while sending raises this error; return what its caller waits for."""

    async def coordinator(*_: Any) -> int:
        return 1

    async def fail(*_: Any, **__: Any) -> None:
        raise error

    producer._sender._find_coordinator = coordinator
    producer.client.send = fail
    end_transactions_once(producer)
    transaction = producer._txn_manager
    transaction.set_pid_and_epoch(1, 1)
    transaction.begin_transaction()
    transaction.maybe_add_partition_to_txn(TP)
    transaction.partition_added(TP)
    transaction.committing_transaction()
    await producer._sender._do_txn_commit(True)
    return cast("asyncio.Future[None]", transaction.wait_for_transaction_end())


@pytest.mark.parametrize("error", [KafkaConnectionError(), RequestTimedOutError()])
async def test_a_commit_that_may_still_arrive_is_not_repeated(
    ours: AIOKafkaProducer, waits: list[float], error: KafkaError
) -> None:
    ended = await end_of_a_transaction(ours, error)
    with pytest.raises(type(error)):
        await ended
    assert ours._txn_manager.needs_transaction_commit() is None


async def test_a_commit_that_was_not_sent_is_repeated(
    ours: AIOKafkaProducer, waits: list[float]
) -> None:
    ended = await end_of_a_transaction(ours, NodeNotReadyError())
    assert not ended.done()
    assert ours._txn_manager.needs_transaction_commit() is not None
