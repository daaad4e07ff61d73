"""Giving up commands that retention removed before they were decided.

A worker refuses to skip them: only a person can give them up, so this is a command of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.structs import TopicPartition
from faust.types import TP
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_after_attempt

from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.kafka.log_reader import open_logs
from streams.kafka.transactions import Fenced, OutputRecord, TransactionalProducer
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.store import MemoryStore, Position, encode_position, position_key

# A supervisor may keep starting workers, and each takes the partition over before it ends.
_MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Expired:
    """Commands that are gone and were not decided: from `position` to `begin` (exclusive)."""

    position: int
    begin: int
    state: str | None = None
    """Version of the state at this position, which stays."""

    @property
    def count(self) -> int:
        """Number of these offsets; those of transaction markers count, too."""
        return max(0, self.begin - self.position)


async def find_expired(settings: Settings, names: TopicNames, partition: int) -> Expired:
    """Return which commands of a partition expired before they were decided."""
    commands, changelog = (
        TopicPartition(topic, partition) for topic in (names.commands, names.changelog)
    )
    async with open_logs(settings, [commands, changelog]) as logs:
        logs.consumer.assign([changelog])
        state = await restore(logs.consumer, changelog, MemoryStore())
        begin = (await logs.begin_offsets([commands]))[commands]
    stored = state.position(TP(*commands))
    if stored is None:
        return Expired(begin, begin)
    return Expired(stored.offset, begin, stored.state)


async def skip_expired(
    settings: Settings, names: TopicNames, partition: int, worker: str
) -> Expired:
    """Give up the commands of a partition that expired undecided, and return which those were.

    The position moves to the begin of the log in a transaction like a worker's own: a worker that
    owns the partition is fenced, and takes it over again.

    Args:
        settings: with the address of Kafka.
        names: of the aggregate's topics.
        partition: number of the partition of the command topic.
        worker: app id of the command workers, without the namespace.

    Raises:
        Fatal: at every attempt a worker took the partition over.
    """
    tp = TP(names.commands, partition)
    producer = TransactionalProducer(settings, settings.namespace + worker, tp)
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Fenced),
            stop=stop_after_attempt(_MAX_ATTEMPTS),
            reraise=True,
        ):
            with attempt:
                await producer.start()
                expired = await find_expired(settings, names, partition)
                if expired.count:
                    position = encode_position(Position(expired.begin, expired.state))
                    record = OutputRecord(position_key(tp), position)
                    await producer.commit({names.changelog: producer.batches([record])})
    except Fenced:
        raise Fatal(
            f"{names.commands}[{partition}] was taken over by a worker before its position could "
            "be moved: stop the command workers and try again"
        ) from None
    finally:
        await producer.close()
    return expired
