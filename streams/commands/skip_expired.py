"""The way out when commands expired before they were decided: a worker refuses to go on over them.

Only a person can say that they are given up, so this is a command of its own.
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
from streams.state.store import MemoryStore, encode_position, position_key

# A supervisor may go on starting workers, each of which takes the partition over before it ends.
_MOST_ATTEMPTS = 5


@dataclass(frozen=True)
class Expired:
    """The commands from `position` to before `begin` are gone and were not decided."""

    position: int
    begin: int

    @property
    def count(self) -> int:
        """How many positions that is; markers of transactions are among them, if there were any."""
        return max(0, self.begin - self.position)


async def find_expired(settings: Settings, names: TopicNames, partition: int) -> Expired:
    """What of a partition of the command topic expired before it was decided."""
    commands, changelog = (
        TopicPartition(topic, partition) for topic in (names.commands, names.changelog)
    )
    async with open_logs(settings, [commands, changelog]) as logs:
        logs.consumer.assign([changelog])
        state = await restore(logs.consumer, changelog, MemoryStore())
        begin = (await logs.begin_offsets([commands]))[commands]
    position = state.position(TP(*commands))
    return Expired(begin if position is None else position, begin)


async def skip_expired(
    settings: Settings, names: TopicNames, partition: int, worker: str
) -> Expired:
    """Give up the commands of a partition that expired undecided, and return which those were.

    The position moves to the begin of the log in a transaction as the worker's own would be:
    a worker that owns the partition is fenced, and takes it over again.

    Args:
        settings: where Kafka is.
        names: of the aggregate's topics.
        partition: of the command topic.
        worker: the app id of the command workers, without the namespace.

    Raises:
        Fatal: workers took the partition over again and again meanwhile.
    """
    tp = TP(names.commands, partition)
    producer = TransactionalProducer(settings, settings.namespace + worker, tp)
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Fenced),
            stop=stop_after_attempt(_MOST_ATTEMPTS),
            reraise=True,
        ):
            with attempt:
                await producer.start()
                expired = await find_expired(settings, names, partition)
                if expired.count:
                    position = OutputRecord(position_key(tp), encode_position(expired.begin))
                    await producer.commit({names.changelog: producer.batches([position])})
    except Fenced:
        raise Fatal(
            f"{names.commands}[{partition}] was taken over by a worker whenever its position was "
            "to be moved: stop the command workers and try again"
        ) from None
    finally:
        await producer.close()
    return expired
