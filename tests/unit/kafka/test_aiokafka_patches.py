"""What is changed of aiokafka is changed for our own clients, and for those of nobody else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import ConcurrentTransactions, CoordinatorLoadInProgressError
from aiokafka.producer import sender
from aiokafka.structs import TopicPartition

from streams.kafka.aiokafka_patches import yield_fetched_records
from streams.kafka.clients import new_producer
from streams.kafka.records import FetchedRecord
from streams.settings import Settings

TP = TopicPartition("users.events.v1", 3)

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


async def test_only_our_producer_waits_before_it_tries_a_broker_again(
    ours: AIOKafkaProducer, plain: AIOKafkaProducer, waits: list[float]
) -> None:
    unknown = 7
    assert await plain.client._get_conn(unknown) is None
    assert waits == []
    assert await ours.client._get_conn(unknown) is None
    assert waits == [0.1]


def test_only_the_fetch_that_it_is_given_yields_our_records() -> None:
    changed, other = (
        FetchResult(
            TP,
            assignment=None,
            partition_records=PartitionRecords.__new__(PartitionRecords),
            backoff=0,
        )
        for _ in range(2)
    )
    yield_fetched_records(changed)
    fetched = SimpleNamespace(offset=5, timestamp=9, key=b"k", value=b"v", headers=[("h", b"x")])
    assert changed._partition_records._consumer_record(TP, fetched) == FetchedRecord(
        TP.topic, TP.partition, 5, 9, b"k", b"v", (("h", b"x"),)
    )
    assert "_consumer_record" not in vars(other._partition_records)
