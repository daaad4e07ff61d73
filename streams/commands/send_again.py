"""Send dead letters to the command topic again, each once.

Each goes in one transaction with a record on the topic of the dead letters that says so. The
producer of a partition has a transactional id of its own, so of two that do this at the same time
one is fenced, and what the other one has sent is read before anything is sent. The record on the
command topic is the original one, with its id: one that has been answered meanwhile, or whose user
has been erased, is not sent. Sending may take hours, so that is looked up before each transaction.

It is decided as what it is then: the newest command of its aggregate. Those that came after the
first attempt were decided before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Final
from uuid import UUID

import orjson
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import Fatal, Poison
from models.outcomes import Accepted, Rejection, parse_outcome
from streams.aggregate import TopicNames
from streams.commands.failed import DeadCommand, read_dead_letters
from streams.commands.parking import CURABLE
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.dead_letters import marker
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.records import Record, time_of
from streams.kafka.transactions import Fenced, OutputRecord, TransactionalProducer
from streams.logs import name_of
from streams.settings import Settings

SENT_BY_DEFAULT: Final = CURABLE | {"parked-full", "unreadable-state"}
"""Codes that may have a cure; others have to be asked for."""

_MAX_BATCH = 100


async def send_again(
    settings: Settings,
    names: TopicNames,
    worker: str,
    partition: int,
    wanted: Callable[[DeadCommand], bool],
    rate: float | None = None,
) -> AsyncGenerator[Sequence[DeadCommand], None]:
    """Send the wanted dead letters of one partition again; yield them as they are committed.

    Args:
        settings: with the address of Kafka, and the master key if personal data is encrypted.
        names: of the aggregate's topics.
        worker: app id of the command workers, without the namespace.
        partition: number of the partition.
        wanted: says which ones; what cannot be sent, or was, is left out anyway.
        rate: most of them in a second.

    Raises:
        Fatal: another process sends those of this partition at the same time.
        Transient, KafkaError: Kafka failed; what was yielded is sent, and no more.
    """
    tp = TP(names.commands, partition)
    app_id = f"{settings.namespace}{worker}-again"  # within the rights on `{worker}-`
    producer = TransactionalProducer(settings, app_id, tp)
    dead, outcomes = (
        TopicPartition(topic, partition) for topic in (names.dead_commands, names.outcomes)
    )
    try:
        await producer.start()
        async with (
            open_logs(settings, [dead, outcomes]) as logs,
            open_key_ring(settings, names) as ring,
        ):
            letters = await read_dead_letters(logs, names, partition, ring)
            chosen = newest([one for one in letters if wanted(one)])
            answers = _Answers(logs, outcomes, {one.key for one in chosen})
            unsent = [one for one in chosen if can_be_sent(one)]
            size = _MAX_BATCH if rate is None else max(1, min(_MAX_BATCH, int(rate)))
            for start in range(0, len(unsent), size):
                began = time.monotonic()
                await answers.read_on()
                due = [one for one in unsent[start : start + size] if not answers.have(one)]
                batch = await _without_erased(due, partition, ring)
                if not batch:
                    continue
                await producer.commit(
                    {
                        names.commands: producer.batches(map(original, batch)),
                        names.dead_commands: producer.batches(map(_marker, batch)),
                    }
                )
                yield batch
                if rate is not None and start + size < len(unsent):
                    await asyncio.sleep(max(0.0, len(batch) / rate - (time.monotonic() - began)))
    except Fenced:
        raise Fatal(
            f"{name_of(tp)}: another `cqrs dead replay` sends its dead letters; wait "
            "until it has ended"
        ) from None
    finally:
        await producer.close()


def can_be_sent(letter: DeadCommand) -> bool:
    """Return whether a dead letter has all of the command, and was not sent again."""
    return letter.is_whole and not letter.sent_again and letter.key is not None


def newest(letters: Sequence[DeadCommand]) -> list[DeadCommand]:
    """Return the last dead letter of each command, in the order of the first ones."""
    last = {(one.key, one.command_id): one for one in letters}
    first = {(one.key, one.command_id): one.offset for one in reversed(letters)}
    return sorted(last.values(), key=lambda one: first[one.key, one.command_id])


def original(letter: DeadCommand) -> OutputRecord:
    """Return the command's record as it was; the id and the time that it got are written in."""
    value = letter.value
    try:
        data = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        data = None
    if isinstance(data, dict) and (data.get("id") is None or data.get("timestamp") is None):
        at = time_of(Record("", 0, 0, letter.timestamp, None, None))
        made = {"id": str(letter.command_id), "timestamp": at.isoformat().replace("+00:00", "Z")}
        value = orjson.dumps(data | {name: data.get(name) or made[name] for name in made})
    return OutputRecord(letter.key, value, letter.headers)


def _marker(letter: DeadCommand) -> OutputRecord:
    return marker(Record("", letter.partition, letter.offset, 0, letter.key, None))


class _Answers:
    """Which commands of some aggregates have been accepted or rejected.

    A producer may use one id for several aggregates.
    """

    def __init__(
        self, logs: LogReader, outcomes: TopicPartition, keys: Collection[bytes | None]
    ) -> None:
        self._logs = logs
        self._outcomes = outcomes
        self._keys = keys
        self._found: set[tuple[bytes | None, UUID | None]] = set()
        self._position = 0

    def have(self, letter: DeadCommand) -> bool:
        """Return whether the command of a dead letter is among what was read."""
        return (letter.key, letter.command_id) in self._found

    async def read_on(self) -> None:
        """Read the outcomes that were written since the last call."""
        end = (await self._logs.end_offsets([self._outcomes]))[self._outcomes]
        async for records in self._logs.read(self._outcomes, self._position, end):
            for record in records:
                if record.key in self._keys:
                    try:
                        outcome = parse_outcome(record.value or b"")
                    except Poison:
                        continue
                    if isinstance(outcome, Accepted | Rejection):
                        self._found.add((record.key, outcome.command_id))
        self._position = end


async def _without_erased(
    letters: Sequence[DeadCommand], partition: int, ring: KeyRing | None
) -> Sequence[DeadCommand]:
    """Return the letters without those of aggregates whose data key was destroyed meanwhile."""
    sealed = {one.key for one in letters if one.was_sealed and one.key is not None}
    if ring is None or not sealed:
        return letters
    await ring.ensure_loaded(partition, sealed)
    keys = ring.of(partition)
    return [one for one in letters if not one.was_sealed or (one.key or b"") in keys]
