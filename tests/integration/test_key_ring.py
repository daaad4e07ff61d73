"""A key may be seen later than what it opens, and only one that is gone counts as gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from msgspec.structs import replace
from pydantic import SecretStr

from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import create_user_topics, new_settings
from deploy.waiting import wait_until
from models.events import USER_EVENTS, UserEvent, UserRegistered
from models.messages import EventRecord
from models.wire import encode
from streams.aggregate import TopicNames
from streams.encryption.cipher import seal_event
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.encryption.keys import PartitionKeys, master_keys, new_master_key
from streams.kafka.clients import new_producer
from streams.kafka.records import Record
from streams.settings import Settings
from streams.views.event_reader import EventReader
from tests.harness.read_side import record, registered

PARTITION = 1
ANNA = record("anna", 1, registered("anna@example.org"))
READ = replace(ANNA, offset=0)  # it is the first record


@pytest.fixture
async def settings(stack: EmbeddedStack) -> Settings:
    made = new_settings(stack, master_key=SecretStr(new_master_key()))
    await create_user_topics(made)
    return made


@asynccontextmanager
async def open_ring(settings: Settings) -> AsyncIterator[KeyRing]:
    async with open_key_ring(settings, TopicNames.of(settings, "users")) as ring:
        assert ring is not None
        yield ring


@asynccontextmanager
async def transactions(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    async with new_producer(settings, transactional_id=f"{settings.namespace}owner") as producer:
        yield producer


async def put(producer: AIOKafkaProducer, settings: Settings, value: bytes | None) -> None:
    """Write Anna's key, or its tombstone."""
    topic = TopicNames.of(settings, "users").keys
    await producer.send_and_wait(topic, value, b"anna", partition=PARTITION)


def sealed(keys: PartitionKeys, wrapped: bytes) -> Record:
    """Anna's registration as it is on the topic."""
    wire = ANNA.to_wire()
    keys.apply(b"anna", wrapped)
    key = keys.get(b"anna")
    assert key is not None
    seal_event(wire, ANNA.event.personal, key)
    value = encode(wire)
    return Record("t", PARTITION, 0, 0, b"anna", value)


async def read(ring: KeyRing, *lines: Record) -> list[Any]:
    return await EventReader[UserEvent](USER_EVENTS, ring).read(lines)


def email_in(event: EventRecord[UserEvent]) -> str:
    assert isinstance(event.event, UserRegistered)
    return event.event.email


async def test_a_key_whose_transaction_is_still_open_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = PartitionKeys(master_keys(settings))
    getmany = AIOKafkaConsumer.getmany
    polls = 0

    async def count_polls(self: AIOKafkaConsumer, *args: Any, **options: Any) -> Any:
        nonlocal polls
        found = await getmany(self, *args, **options)
        polls += 1
        return found

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", count_polls)
    wrapped = keys.make(b"anna")[0]
    async with transactions(settings) as owner, open_ring(settings) as ring:
        await owner.begin_transaction()
        await put(owner, settings, wrapped)
        reading = asyncio.create_task(read(ring, sealed(keys, wrapped)))
        await wait_until(lambda: reading.done() or polls > 10)
        assert not reading.done()
        await owner.commit_transaction()
        assert await reading == [READ]


async def test_a_key_of_an_aborted_transaction_is_ignored(settings: Settings) -> None:
    keys = PartitionKeys(master_keys(settings))
    wrapped = keys.make(b"anna")[0]
    async with transactions(settings) as owner, open_ring(settings) as ring:
        await owner.begin_transaction()
        await put(owner, settings, wrapped)
        await owner.abort_transaction()
        (event,) = await read(ring, sealed(keys, wrapped))
        assert email_in(event) == ""


async def test_a_destroyed_key_leaves_the_memory_without_being_asked_for(
    settings: Settings,
) -> None:
    keys = PartitionKeys(master_keys(settings))
    wrapped = keys.make(b"anna")[0]
    async with new_producer(settings) as producer, open_ring(settings) as ring:
        await put(producer, settings, wrapped)
        (event,) = await read(ring, sealed(keys, wrapped))
        assert email_in(event) == "anna@example.org"
        await put(producer, settings, None)
        await wait_until(lambda: b"anna" not in ring.of(PARTITION))
        (event,) = await read(ring, sealed(keys, wrapped))
        assert email_in(event) == ""


async def test_a_key_that_was_destroyed_long_ago_is_never_used(settings: Settings) -> None:
    """Though the topic is read in several parts, and the first one has the key."""
    keys = PartitionKeys(master_keys(settings))
    wrapped = keys.make(b"anna")[0]
    async with new_producer(settings) as producer, open_ring(settings) as ring:
        await put(producer, settings, wrapped)
        topic = TopicNames.of(settings, "users").keys
        for number in range(12_000):
            user = f"user-{number}".encode()
            await producer.send(topic, keys.make(user)[0], user, partition=PARTITION)
        await put(producer, settings, None)
        (event,) = await read(ring, sealed(keys, wrapped))
        assert email_in(event) == ""


async def test_a_partition_that_comes_back_is_read_again(settings: Settings) -> None:
    keys = PartitionKeys(master_keys(settings))
    wrapped = keys.make(b"anna")[0]
    async with new_producer(settings) as producer, open_ring(settings) as ring:
        await put(producer, settings, wrapped)
        line = sealed(keys, wrapped)
        assert await read(ring, line) == [READ]
        ring.forget(PARTITION)
        assert await read(ring, line) == [READ]
        ring.forget(PARTITION)
        await put(producer, settings, None)
        (event,) = await read(ring, line)
        assert email_in(event) == ""
