"""The limit in Python: what aiokafka and orjson can do without anything else.

Run it as `python -m benchmarks.peers.plain_loop`. One task per partition reads up to
CQRS_MAX_CHUNK_RECORDS records, decides them on a dict, and writes events, outcomes and offsets in
one transaction. There is no rebalance and no state to restore; any error ends the program.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from benchmarks.peers.rules import Json, decide, event_of, evolve, outcome_of
from streams.aggregate import TopicNames
from streams.kafka.clients import RETRY_BACKOFF_MS, new_consumer, new_producer
from streams.kafka.topics import partitions_of
from streams.settings import Settings
from streams.settings import settings as read_settings

_Records = list[tuple[bytes, bytes]]  # keys and values


async def run(settings: Settings) -> None:
    """Decide commands until the process is stopped."""
    names = TopicNames.of(settings, "users")
    partitions = partitions_of(settings, names.commands)
    async with new_consumer(settings) as consumer:
        consumer.assign(partitions)
        await asyncio.gather(*(_loop(settings, names, consumer, tp) for tp in partitions))


async def _loop(
    settings: Settings, names: TopicNames, consumer: AIOKafkaConsumer, tp: TopicPartition
) -> None:
    users: dict[str, Json] = {}
    group = f"{settings.namespace}plain-loop"
    async with new_producer(
        settings,
        transactional_id=f"{group}-{tp.partition}",
        retry_backoff_ms=RETRY_BACKOFF_MS,
    ) as producer:
        while True:
            fetched = await consumer.getmany(
                tp, timeout_ms=200, max_records=settings.max_chunk_records
            )
            records = fetched.get(tp)
            if not records:
                continue
            outputs = _decide(records, users)
            async with producer.transaction():
                written = [
                    await producer.send_batch(batch, topic, partition=tp.partition)
                    for topic, values in zip((names.events, names.outcomes), outputs, strict=True)
                    for batch in _batches(producer, values)
                ]
                await asyncio.gather(*written)
                await producer.send_offsets_to_transaction({tp: records[-1].offset + 1}, group)


def _decide(records: Sequence[Any], users: dict[str, Json]) -> tuple[_Records, _Records]:
    events: _Records = []
    outcomes: _Records = []
    for record in records:
        command: Json = {}
        try:
            command = orjson.loads(record.value)
            key = command["aggregateId"]
            user = users.get(key)
            decision = decide(command, user)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            outcome: Json = {"status": "dead-lettered"}
        else:
            if isinstance(decision, str):
                outcome = outcome_of(command, "rejected", code=decision)
            else:
                user = users[key] = evolve(user, *decision)
                events.append(
                    (record.key, orjson.dumps(event_of(command, *decision, user["version"])))
                )
                outcome = outcome_of(command, "accepted", sequence=user["version"])
        outcomes.append((record.key, orjson.dumps(outcome)))
    return events, outcomes


def _batches(producer: AIOKafkaProducer, values: _Records) -> list[Any]:
    batches: list[Any] = []
    batch = None
    for key, value in values:
        if batch is None or not batch.append(key=key, value=value, timestamp=None):
            batch = producer.create_batch()
            batches.append(batch)
            batch.append(key=key, value=value, timestamp=None)
    return batches


if __name__ == "__main__":
    gc.set_threshold(50_000, 50, 100)  # as in our worker
    uvloop.install()
    asyncio.run(run(read_settings()))
