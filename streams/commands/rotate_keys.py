"""Wrap the data keys of users anew after the master key has changed, while workers run.

A data key that was destroyed must not come back: its tombstone and the newly wrapped key are on the
same topic, and the later one counts. So a partition's keys are written as its owner writes them, in
transactions of the producer that belongs to the partition, after earlier owners were fenced and
what they wrote was read to its end. Whoever erases a user meanwhile has to own the partition, and
by that fences this program: its transaction is refused as a whole.

The partition is first read without fencing anybody. If there is nothing to do nobody is disturbed;
otherwise only what was written since then is read between fencing and writing, so that a worker
which takes the partition over again at once does not prevent all progress. But compaction removes
tombstones, too: if the read before is too old, as after a suspension, all is read again then.

A data key that no master key opens stays as it is and holds up no other one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.aggregate import TopicNames
from streams.commands.ownership import TakenOver, work_as_owner
from streams.encryption.key_ring import Moment, max_key_gap_s, not_read_in_time
from streams.encryption.keys import MasterKeys, master_keys, no_master_key
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings

# Most keys in a transaction.
MAX_KEYS = 5000


@dataclass(frozen=True)
class WrappedKeys:
    """How the data keys of a partition are wrapped."""

    partition: int
    current: int
    """Users whose data key is wrapped with CQRS_MASTER_KEY."""
    second: int
    """Users whose data key is wrapped with CQRS_SECOND_MASTER_KEY."""
    unknown: int
    """Users whose data key neither of them opens: there is another master key."""
    damaged: int
    """Users whose data key names one of them, which does not open it."""
    replaced: int
    """Records of other master keys that do not count any more, until Kafka compacts them away."""


@dataclass(frozen=True)
class Rotated:
    """Result for the data keys of a partition."""

    partition: int
    wrapped: int
    """Number of those that were wrapped again."""
    unknown: tuple[str, ...]
    """Users whose data key neither master key opens; it is as before."""
    damaged: tuple[str, ...]
    """Users whose data key is damaged; it is as before."""


class KeysLog:
    """What a partition of the keys topic says, as far as it was read."""

    def __init__(self, master: MasterKeys, partition: TopicPartition) -> None:
        self._master = master
        self._first = MasterKeys(master.first)
        self._second = None if master.second is None else MasterKeys(master.second)
        self._partition = partition
        self._position = 0
        self.complete_at = Moment.now()
        """All that was written before has been applied; until the first read, when it began."""
        self._current: set[bytes] = set()
        self._unknown: set[bytes] = set()
        self._damaged: set[bytes] = set()
        self._others = 0  # records that the first master key does not open
        self.second: dict[bytes, bytes] = {}
        """Data keys that are wrapped with the second master key, by aggregate id."""

    async def read_on(self, logs: LogReader, progress: ProgressCallback = no_progress) -> None:
        """Read to the end of what is written now; what open transactions wrote is waited for.

        Raises:
            Transient: it could not be read to its end.
        """
        topic, number = self._partition
        asked = Moment.now()
        end = (await logs.end_offsets([self._partition]))[self._partition]
        async for records in logs.read(self._partition, self._position, end):
            for record in records:
                self.apply(record.key, record.value)
            progress(f"Reading {topic}[{number}]", records[-1].offset + 1, end)
        self._position = end
        self.complete_at = asked

    def apply(self, aggregate_id: bytes, wrapped: bytes | None) -> None:
        """Apply one record; None destroys the data key."""
        self._current.discard(aggregate_id)
        self._unknown.discard(aggregate_id)
        self._damaged.discard(aggregate_id)
        self.second.pop(aggregate_id, None)
        if wrapped is None:
            return
        if self._first.opens(aggregate_id, wrapped):
            self._current.add(aggregate_id)
            return
        self._others += 1
        if self._second is not None and self._second.opens(aggregate_id, wrapped):
            self.second[aggregate_id] = wrapped
        elif self._master.are_named_by(wrapped):
            self._damaged.add(aggregate_id)
        else:
            self._unknown.add(aggregate_id)

    def summary(self) -> WrappedKeys:
        """Return how the data keys are wrapped."""
        left = len(self.second) + len(self._unknown) + len(self._damaged)
        return WrappedKeys(
            self._partition.partition,
            current=len(self._current),
            second=len(self.second),
            unknown=len(self._unknown),
            damaged=len(self._damaged),
            replaced=self._others - left,
        )

    def rotated(self, wrapped: int) -> Rotated:
        """Return what became of the data keys, of which `wrapped` were wrapped anew."""
        return Rotated(
            self._partition.partition, wrapped, _names(self._unknown), _names(self._damaged)
        )


async def read_wrapped_keys(
    settings: Settings,
    names: TopicNames,
    partition: int,
    progress: ProgressCallback = no_progress,
) -> WrappedKeys:
    """Return how the data keys of a partition are wrapped. Nothing is written.

    Raises:
        Fatal: Kafka does not answer, or there is no master key.
        Transient: reading failed.
    """
    keys = TopicPartition(names.keys, partition)
    async with open_logs(settings, [keys]) as logs:
        log = KeysLog(_required(settings), keys)
        await log.read_on(logs, progress)
        return log.summary()


async def rotate_keys(
    settings: Settings,
    names: TopicNames,
    partition: int,
    worker: str,
    progress: ProgressCallback = no_progress,
) -> Rotated:
    """Wrap the data keys of a partition that the second master key wrapped with the first one.

    A worker that owns the partition is fenced if there are any, and takes it over again. After an
    interruption at any point another call wraps what is left. Those that cannot be opened are left.

    Args:
        settings: with the address of Kafka, and both master keys.
        names: of the aggregate's topics.
        partition: number of the partition.
        worker: app id of the command workers, without the namespace.
        progress: receives how far reading and writing are.

    Raises:
        Fatal: a master key is missing, or a worker took the partition over before anything could be
            written.
        KafkaError, Transient: reading or writing failed.
    """
    master = _required(settings)
    tp = TP(names.commands, partition)
    keys = TopicPartition(names.keys, partition)
    max_gap_s = await max_key_gap_s(settings, names)
    wrapped = 0
    async with open_logs(settings, [keys]) as logs:
        log = KeysLog(master, keys)

        async def wrap_all(producer: TransactionalProducer) -> None:
            nonlocal log, wrapped
            read_before = log.complete_at
            await log.read_on(logs)
            if read_before.age > max_gap_s:
                log = KeysLog(master, keys)
                began = log.complete_at
                await log.read_on(logs, progress)
                if began.age > max_gap_s:
                    raise not_read_in_time(keys, max_gap_s)
            while log.second:
                ids = list(log.second)[:MAX_KEYS]
                records = _wrapped_anew(master, log, ids)
                await producer.commit({names.keys: producer.batches(records)})
                for record in records:
                    assert record.key is not None
                    log.apply(record.key, record.value)
                wrapped += len(ids)
                progress(f"Wrapping {keys.topic}[{partition}]", wrapped, wrapped + len(log.second))

        await log.read_on(logs, progress)
        while log.second:
            before = wrapped
            try:
                await work_as_owner(settings, tp, worker, wrap_all, "its keys were wrapped again")
            except TakenOver:
                if wrapped == before:
                    raise
        return log.rotated(wrapped)


def _wrapped_anew(master: MasterKeys, log: KeysLog, ids: Sequence[bytes]) -> list[OutputRecord]:
    return [OutputRecord(id_, master.wrap(id_, master.unwrap(id_, log.second[id_]))) for id_ in ids]


def _names(ids: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(sorted(one.decode(errors="replace") for one in ids))


def _required(settings: Settings) -> MasterKeys:
    master = master_keys(settings)
    if master is None:
        raise no_master_key()
    return master
