"""Write the changelog of a long-lived deployment, without deciding its commands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice

from faust.types import TP

from agents.users import COMMAND_WORKER
from models.user import User
from streams.aggregate import TopicNames
from streams.kafka.log_reader import open_logs
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from streams.settings import Settings
from streams.state.snapshot import RememberedAcceptance, Snapshot, encode_snapshot
from streams.state.store import Position, encode_position, position_key

_CHUNK_RECORDS = 2000  # in one transaction, as of a busy worker
_DIFFERENT_VALUES = 997  # with fewer, compression would work better than with real data
_REGISTERED_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def states(window: int, seed: int, *, size: int = 0) -> list[bytes]:
    """Return 997 different values of the state table.

    Args:
        window: remembered commands in the dedupe window of each.
        seed: of the random choices.
        size: least number of bytes of each.
    """
    rng = random.Random(seed)
    return [_state(window, rng, size) for _ in range(_DIFFERENT_VALUES)]


def _state(window: int, rng: random.Random, size: int) -> bytes:
    name = f"{rng.getrandbits(64):x}"
    remembered = tuple(
        RememberedAcceptance(rng.randbytes(16), number, 1, rng.randrange(10_000_000))
        for number in range(1, window + 1)
    )

    def encoded(last_name: str) -> bytes:
        user = User(
            f"{name}@example.org", "Anna", last_name, "web", True, _REGISTERED_AT, _REGISTERED_AT
        )
        return encode_snapshot(Snapshot(user, window, remembered))

    missing = max(0, size - len(encoded("")))
    return encoded(f"{rng.getrandbits(4 * missing + 4):0{missing + 1}x}"[:missing])


async def write_changelog(
    settings: Settings, names: TopicNames, *, aggregates: int, records: int, values: Sequence[bytes]
) -> None:
    """Write `records` records of `aggregates` aggregates, in turn, in a worker's transactions.

    The position that they store is the present end of the command topic.
    """
    keys: list[list[bytes]] = [[] for _ in range(settings.partitions)]
    for number in range(aggregates):
        key = b"user-%d" % number
        keys[partition_of(key, settings.partitions)].append(key)
    commands = partitions_of(settings, names.commands)
    async with open_logs(settings, commands) as logs:
        positions = await logs.end_offsets(commands)
    share = records / aggregates
    await asyncio.gather(
        *(
            _write_partition(
                settings,
                names,
                TP(*commands[number]),
                _outputs(keys[number], round(share * len(keys[number])), values),
                positions[commands[number]],
            )
            for number in range(settings.partitions)
        )
    )


def _outputs(keys: Sequence[bytes], count: int, values: Sequence[bytes]) -> Iterator[OutputRecord]:
    for number in range(count):
        yield OutputRecord(keys[number % len(keys)], values[number % len(values)])


async def _write_partition(
    settings: Settings, names: TopicNames, tp: TP, outputs: Iterator[OutputRecord], position: int
) -> None:
    producer = TransactionalProducer(settings, settings.namespace + COMMAND_WORKER, tp)
    await producer.start()
    try:
        while chunk := list(islice(outputs, _CHUNK_RECORDS)):
            chunk.append(OutputRecord(position_key(tp), encode_position(Position(position))))
            await producer.commit({names.changelog: producer.batches(chunk)})
    finally:
        await producer.close()
