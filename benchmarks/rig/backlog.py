"""The same commands for every contestant, on topics of its own, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
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
    """Keys and values, and how often each status has to be answered."""

    records: Sequence[tuple[bytes, bytes]]
    statuses: Counter[str]


@lru_cache(maxsize=1)
def backlog(commands: int, seed: int) -> Backlog:
    """So many commands, of which some are rejected, some repeated and some no commands at all."""
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
    ground: BenchContext, **configs: Mapping[str, str]
) -> tuple[Settings, TopicNames]:
    """A namespace with topics of its own, as ours are, but for the times of the outcomes.

    Those are the broker's, so that they mean the same whoever writes them. `configs` has more that
    is different, by what `Names` calls the topic.
    """
    settings = new_settings(
        ground.stack, partitions=PARTITIONS, session_timeout=10.0, transaction_timeout=15.0
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
    """Put records on a topic."""
    async with started(new_producer(settings), settings) as producer:
        sender = BulkSender(producer, topic, settings.partitions)
        for key, value in records:
            await sender.add(key, value)
        await sender.flush()


async def committed(settings: Settings, topic: str) -> list[Any]:
    """All records of a topic that a `read_committed` reader sees, by partition and offset."""
    partitions = partitions_of(settings, topic)
    async with open_logs(settings, partitions) as logs:
        return [
            record
            for tp, end in sorted((await logs.end_offsets(partitions)).items())
            async for records in logs.read(tp, 0, end)
            for record in records
        ]


def rate(times: Sequence[float], warm_up: int) -> float:
    """Outcomes per second after the first `warm_up`.

    The broker writes many at a time: those that came with the last one of the warm-up belong to it.
    """
    begin, end = times[warm_up], times[-1]
    counted = sum(1 for time in islice(times, warm_up, None) if time > begin)
    return counted / (end - begin) if counted else float(len(times))
