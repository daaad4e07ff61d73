"""The limit in Python: what aiokafka and orjson can do when nothing else is done.

Run as `python -m benchmarks.peers.plain_loop`. One task per partition reads up to 2,000 records,
decides them on a dict, and writes events, outcomes and offsets in one transaction. Nobody takes
partitions over, nothing is restored, and what fails ends it.
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
from streams.settings import Settings, settings

_KEYED = list[tuple[bytes, bytes]]


async def run(where: Settings) -> None:
    """Decide until the process is ended."""
    names = TopicNames.of(where, "users")
    partitions = partitions_of(where, names.commands)
    async with new_consumer(where) as consumer:
        consumer.assign(partitions)
        await asyncio.gather(*(_loop(where, names, consumer, tp) for tp in partitions))


async def _loop(
    where: Settings, names: TopicNames, consumer: AIOKafkaConsumer, tp: TopicPartition
) -> None:
    users: dict[str, Json] = {}
    group = f"{where.namespace}plain-loop"
    async with new_producer(
        where,
        transactional_id=f"{group}-{tp.partition}",
        retry_backoff_ms=RETRY_BACKOFF_MS,
    ) as producer:
        while True:
            found = await consumer.getmany(tp, timeout_ms=200, max_records=where.max_chunk_records)
            records = found.get(tp)
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


def _decide(records: Sequence[Any], users: dict[str, Json]) -> tuple[_KEYED, _KEYED]:
    events: _KEYED = []
    outcomes: _KEYED = []
    for record in records:
        command: Json = {}
        try:
            command = orjson.loads(record.value)
            key = command["aggregateId"]
            user = users.get(key)
            answer = decide(command, user)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            outcome: Json = {"status": "dead-lettered"}
        else:
            if isinstance(answer, str):
                outcome = outcome_of(command, "rejected", code=answer)
            else:
                user = users[key] = evolve(user, *answer)
                events.append(
                    (record.key, orjson.dumps(event_of(command, *answer, user["version"])))
                )
                outcome = outcome_of(command, "accepted", sequence=user["version"])
        outcomes.append((record.key, orjson.dumps(outcome)))
    return events, outcomes


def _batches(producer: AIOKafkaProducer, values: _KEYED) -> list[Any]:
    batches: list[Any] = []
    batch = None
    for key, value in values:
        if batch is None or not batch.append(key=key, value=value, timestamp=None):
            batch = producer.create_batch()
            batches.append(batch)
            batch.append(key=key, value=value, timestamp=None)
    return batches


if __name__ == "__main__":
    gc.set_threshold(50_000, 50, 100)  # as our worker has it
    uvloop.install()
    asyncio.run(run(settings()))
