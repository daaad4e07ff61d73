"""New topics for each contestant, the same commands for all, and reading their outcomes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from benchmarks.rig.runner import BenchContext
from deploy.ephemeral import new_settings
from deploy.samples.commands import malformed, plan
from streams.aggregate import TopicNames
from streams.commands.bulk_sender import BulkSender
from streams.kafka.clients import new_producer, started
from streams.kafka.log_reader import open_logs
from streams.kafka.topics import create_topics, partitions_of, topic_specs
from streams.settings import Settings

PARTITIONS = 4
_MALFORMED_EVERY = 200  # records


class Backlog(NamedTuple):
    """Keys and values of records, and the expected number of outcomes by status."""

    records: Sequence[tuple[bytes, bytes]]
    statuses: Counter[str]


@lru_cache(maxsize=1)
def backlog(commands: int, seed: int) -> Backlog:
    """Return this number of records: some are rejected, some repeated, some malformed."""
    bad = malformed(commands // _MALFORMED_EVERY, seed + 1)
    good = plan(commands - commands // _MALFORMED_EVERY, seed)
    records, statuses = [], Counter[str]()
    for number in range(1, commands + 1):
        if number % _MALFORMED_EVERY == 0:
            records.append(next(bad))
            statuses["dead-lettered"] += 1
        else:
            command, status = next(good)
            records.append((command["aggregateId"].encode(), orjson.dumps(command)))
            statuses[status] += 1
    return Backlog(records, statuses)


async def new_deployment(
    context: BenchContext, **configs: Mapping[str, str]
) -> tuple[Settings, TopicNames]:
    """Create a new namespace with all topics of users.

    The timestamps of outcomes are the broker's, so they mean the same for every contestant.
    `configs` has other topic settings, by the field of `TopicNames`.
    """
    settings = new_settings(
        context.stack, partitions=PARTITIONS, session_timeout=10.0, transaction_timeout=15.0
    )
    names = TopicNames.of(settings, "users")
    special = {getattr(names, topic): changes for topic, changes in configs.items()}
    special[names.outcomes] = {
        **special.get(names.outcomes, {}),
        "message.timestamp.type": "LogAppendTime",
    }
    specs = [
        replace(spec, configs={**spec.configs, **special.get(spec.name, {})})
        for spec in topic_specs(settings, names)
    ]
    await create_topics(settings, specs)
    return settings, names


async def send(settings: Settings, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Send records to a topic, and wait until all are acknowledged."""
    async with started(new_producer(settings), settings) as producer:
        sender = BulkSender(producer, topic, settings.partitions)
        for key, value in records:
            await sender.add(key, value)
        await sender.flush()


async def send_at_once(
    settings: Settings, topic: str, records: Iterable[tuple[bytes, bytes]]
) -> None:
    """Send records in one transaction, so that workers see all of them at the same time."""
    producer = new_producer(settings, transactional_id=f"{settings.namespace}at-once")
    async with started(producer, settings), producer.transaction():
        sender = BulkSender(producer, topic, settings.partitions)
        for key, value in records:
            await sender.add(key, value)
        await sender.flush()


async def read_committed(settings: Settings, topic: str) -> list[Any]:
    """Return all records of a topic that a `read_committed` reader sees, in partition order."""
    partitions = partitions_of(settings, topic)
    async with open_logs(settings, partitions) as logs:
        return [
            record
            for tp, end in sorted((await logs.end_offsets(partitions)).items())
            async for records in logs.read(tp, 0, end)
            for record in records
        ]


def end_of_count(commands: int) -> int:
    """Return how many of these commands count, from the first: in the end partitions are idle."""
    return commands - commands // 10


def rate(times: Sequence[float], warm_up: int) -> float:
    """Return outcomes per second after the first `warm_up` and before the last tenth.

    `times` are sorted, in seconds. The broker gives many outcomes the same time. Those with the
    time at which the warm-up ends are not counted, those with the time of the last one all are.
    """
    begin, end = times[warm_up], times[end_of_count(len(times)) - 1]
    counted = bisect_right(times, end) - bisect_right(times, begin)
    return counted / (end - begin) if counted else float(len(times))
