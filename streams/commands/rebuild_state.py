"""Rebuild the states of a partition from its events, which are the truth.

A worker does it when it takes over states of an older version (`streams/state/version.py`), and
`cqrs state rebuild` does it at any time. The dedupe windows are in no event: they are kept from the
former records, whatever the type of their states; that of a record that cannot be read is lost.

Nothing is written before all events were folded and compared with the former records. Then the new
records are written in several transactions. Until the last one the position says that the states
are being rebuilt, so after a failure at any point the next owner rebuilds them again; what was
written already is equal then and is not written again.

The states of all aggregates of the partition are in memory meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Generic, TypeVar

from aiokafka.structs import TopicPartition
from faust.types import TP
from msgspec.structs import replace

from models.errors import PartitionFatal, Poison
from streams.aggregate import Aggregate, TopicNames
from streams.commands.ownership import work_as_owner
from streams.encryption.events import EventDecoder
from streams.encryption.keys import PartitionKeys, master_keys
from streams.encryption.sealer import PartitionSealer
from streams.encryption.shredded import Shredded
from streams.kafka.clients import new_consumer, stop
from streams.kafka.log_reader import read_to
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from streams.logs import about, name_of
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.recovery import Recovered, recover_partition, written_ends
from streams.state.snapshot import Remembered, Snapshot, decode_remembered, encode_snapshot
from streams.state.store import encode_position, position_key
from streams.state.version import StateVersion, has_to_rebuild
from streams.worker.logs import log_defect

logger = logging.getLogger(__name__)

S = TypeVar("S")

# Most states in a transaction, and most between two moments for other tasks of the event loop.
MAX_STATES = 2000

_FETCH_WAIT_MS = 20


@dataclass(frozen=True)
class RebuiltStates:
    """Result of rebuilding a partition."""

    partition: int
    events: int
    """Number of events that were folded."""
    aggregates: int
    changed: int
    """Number of aggregates whose former record was another one."""


class PartitionFold(Generic[S]):
    """Fold of the events of a partition: state and version of each aggregate."""

    def __init__(self, aggregate: Aggregate[S], keys: PartitionKeys) -> None:
        self._aggregate = aggregate
        self._keys = keys
        self._decoder = EventDecoder(aggregate.events)
        self._folded: dict[bytes, tuple[S, int]] = {}
        self._shredded = Shredded()
        self.events = 0

    def __len__(self) -> int:
        return len(self._folded)

    def __iter__(self) -> Iterator[tuple[bytes, S, int]]:
        """Iterate over key, state and version of all aggregates."""
        return ((key, state, version) for key, (state, version) in self._folded.items())

    def add(self, records: Sequence[Record]) -> None:
        """Fold the next records of the event topic.

        A record that cannot be read is left out with a log line: something else may have written
        it. If it was an event, its number is missing, which is an error here or in `check`.

        Raises:
            Fatal: events were lost or doubled, do not fit together, or the master key is missing.
        """
        for record in records:
            try:
                event = self._decoder.decode_plain(record) or self._decoder.decode(
                    record, self._keys
                )
            except Poison as poison:
                if poison.__cause__ is not None:
                    log_defect("reading an event", poison.__cause__, record, offset=record.offset)
                logger.warning(
                    "a record cannot be read and is left out: %s",
                    poison,
                    extra=about("record-left-out", record, offset=record.offset),
                )
                continue
            key = event.aggregate_id.encode()
            state, version = self._folded.get(key, (None, 0))
            if event.sequence != version + 1:
                raise PartitionFatal(
                    f"{_at(record)}: after event {version} of {event.aggregate_id} comes number "
                    f"{event.sequence}: the state cannot be rebuilt; restore the events"
                )
            state = self._aggregate.evolve(state, event.event, event.timestamp)
            self._folded[key] = state, event.sequence
            self._shredded.note(event)
            self.events += 1

    def check(self, key: bytes, version: int) -> None:
        """Check that an aggregate with a former record of this version can be rebuilt.

        Raises:
            Fatal: there are fewer events, or its key was lost: the personal data would be, too.
        """
        _, folded = self._folded.get(key, (None, 0))
        aggregate_id = key.decode(errors="replace")
        if folded < version:
            raise PartitionFatal(
                f"the state of {aggregate_id} is of {version} events, and there "
                f"are {folded}: events were lost, and the state cannot be rebuilt; restore the "
                "events"
            )
        if aggregate_id in self._shredded.ids:
            raise PartitionFatal(
                f"{aggregate_id} was not erased, and its personal data cannot be "
                "read: its key was lost; restore the keys topic from a backup"
            )


async def rebuild_states(
    settings: Settings,
    aggregate: Aggregate[S],
    tp: TP,
    recovered: Recovered,
    keys: PartitionKeys,
    producer: TransactionalProducer,
    progress: ProgressCallback = no_progress,
) -> RebuiltStates:
    """Rebuild the states of an input partition whose earlier owners have been fenced.

    Args:
        settings: with the address of Kafka.
        aggregate: kind of the aggregates.
        tp: the input partition.
        recovered: its former states, which are replaced, and its position, which stays.
        keys: its data keys.
        producer: its producer, started.
        progress: receives how far folding and writing are.

    Raises:
        Fatal: the events are not complete, or cannot be decrypted. Nothing was written.
        Fenced: the partition has a newer owner.
        KafkaError, Transient: reading or writing failed.
    """
    names = TopicNames.of(settings, aggregate.name)
    version = StateVersion.of(aggregate)
    store = recovered.state
    # The states of all aggregates with a data key are sealed, also if this process does not
    # encrypt new data.
    sealer = PartitionSealer(keys, encrypt=True)
    logger.info(
        "%s[%d]: rebuilding the state, to version %s",
        tp.topic,
        tp.partition,
        version,
        extra=about("state-rebuilding", tp),
    )

    def former(key: bytes) -> tuple[bytes | None, int, tuple[Remembered, ...]]:
        stored = store.get(key)
        try:
            value = sealer.open_state(key, stored)
            return (None, 0, ()) if value is None else (value, *decode_remembered(value))
        except ValueError as error:
            logger.warning(
                "the former state of %s cannot be read (%s): its dedupe window is lost",
                key.decode(errors="replace"),
                type(error).__name__,
                extra=about("state-unreadable", tp),
            )
            return None, 0, ()

    async def write(changes: dict[bytes, bytes], to: StateVersion) -> None:
        position = replace(recovered.position, state=str(to))
        changes[position_key(tp)] = encode_position(position)
        batches = producer.batches(starmap(OutputRecord, changes.items()))
        offsets = await producer.commit(
            {names.changelog: batches}, ends={names.changelog: store.end}
        )
        store.apply(changes, offsets[names.changelog] + len(changes))

    fold = PartitionFold(aggregate, keys)
    await _fold_events(settings, TopicPartition(names.events, tp.partition), fold, progress)
    for number, key in enumerate(store):
        if number % MAX_STATES == 0:
            sealer.clear()
            await asyncio.sleep(0)
        fold.check(key, former(key)[1])
    changes: dict[bytes, bytes] = {}
    changed = 0
    for number, (key, state, events) in enumerate(fold):
        if number % MAX_STATES == 0:
            progress(f"Writing {names.changelog}[{tp.partition}]", number, len(fold))
            sealer.clear()
            await asyncio.sleep(0)
        value, _, remembered = former(key)
        new = encode_snapshot(Snapshot(state, events, remembered))
        if new == value:
            continue
        changed += 1
        changes[key] = sealer.seal_state(key, new)
        if len(changes) == MAX_STATES:
            await write(changes, version.unfinished)
            changes = {}
    await write(changes, version)
    logger.info(
        "%s[%d]: rebuilt the state of %d aggregates from %d events; %d records changed",
        tp.topic,
        tp.partition,
        len(fold),
        fold.events,
        changed,
        extra=about("state-rebuilt", tp),
    )
    return RebuiltStates(tp.partition, fold.events, len(fold), changed)


async def rebuild_partition(
    settings: Settings,
    aggregate: Aggregate[S],
    partition: int,
    worker: str,
    progress: ProgressCallback = no_progress,
) -> RebuiltStates:
    """Rebuild the states of a partition although their version is that of this program.

    A worker that owns the partition is fenced, and takes it over again.

    Args:
        settings: with the address of Kafka, and the master key if personal data is encrypted.
        aggregate: kind of the aggregates.
        partition: number of the partition of the command topic.
        worker: app id of the command workers, without the namespace.
        progress: as for `rebuild_states`.

    Raises:
        Fatal: a newer program made the states, at every attempt a worker took the partition over,
            or as for `rebuild_states`.
    """
    names = TopicNames.of(settings, aggregate.name)
    tp = TP(names.commands, partition)
    # In memory: a worker on this host may use the folder.
    settings = settings.model_copy(update={"state_dir": None})

    async def rebuild(producer: TransactionalProducer) -> RebuiltStates:
        recovered = await recover_partition(settings, names, tp)
        has_to_rebuild(tp, recovered.position, StateVersion.of(aggregate))
        keys = PartitionKeys(master_keys(settings), recovered.keys)
        return await rebuild_states(settings, aggregate, tp, recovered, keys, producer, progress)

    return await work_as_owner(settings, tp, worker, rebuild, "its state was rebuilt")


async def _fold_events(
    settings: Settings, events: TopicPartition, fold: PartitionFold[S], progress: ProgressCallback
) -> None:
    """Fold a partition of the event topic up to its end, also after open transactions.

    The partition's own earlier owners have none, another program may.
    """
    consumer = new_consumer(settings, fetch_max_wait_ms=_FETCH_WAIT_MS)
    try:
        await consumer.start()
        consumer.assign([events])
        end = (await written_ends(settings, [events]))[events]
        await consumer.seek_to_beginning(events)
        async for records in read_to(consumer, events, end):
            fold.add(records)
            progress(f"Folding {name_of(events)}", records[-1].offset + 1, end)
    finally:
        await stop(consumer)


def _at(record: Record) -> str:
    return f"{name_of(record)} at offset {record.offset}"
