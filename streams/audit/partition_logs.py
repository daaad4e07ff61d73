"""The logs of one partition, read once and put into buckets, so that they fit in memory.

`verify` and `verify_states` share it: what is read, in the order in which it has to be read. The
order matters, because workers continue meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from math import ceil
from types import TracebackType
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition
from faust.types import TP
from typing_extensions import Self

from models.messages import Source
from streams.aggregate import TopicNames
from streams.audit.folds import Frozen, Kept
from streams.audit.partition import dead_letter_turn, outcome_turn
from streams.audit.spill import Spill
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.kafka.log_reader import LogReader
from streams.kafka.records import Record
from streams.state.changelog import readable_records
from streams.state.parked import PARKED_PREFIX, parked_id
from streams.state.store import RESERVED, Position, decode_position, position_key

# Records of a bucket. They take about 250 MiB while they are checked.
_BUCKET_RECORDS = 400_000

# Records that are taken between two reports of the progress.
_ADVANCE_RECORDS = 1000

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(
    tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
).decode


class Shelf(IntEnum):
    """The kinds of records of a partition."""

    KEYS = 0
    STATES = 1
    COMMANDS = 2
    OUTCOMES = 3
    DEAD_LETTERS = 4
    EVENTS = 5


async def count_buckets(
    logs: LogReader, topics: Iterable[str], partitions: Iterable[int]
) -> tuple[int, int]:
    """Return how many buckets a partition needs, and how many records there are in all.

    Transaction markers count as records.
    """
    sizes = []
    for number in partitions:
        read = [TopicPartition(topic, number) for topic in topics]
        begins, ends = await logs.begin_offsets(read), await logs.end_offsets(read)
        sizes.append(sum(ends.values()) - sum(begins.values()))
    return max(1, ceil(max(sizes, default=0) / _BUCKET_RECORDS)), sum(sizes)


class PartitionLogs:
    """Records of one partition: call `read`, then take what is in each bucket."""

    def __init__(
        self,
        logs: LogReader,
        names: TopicNames,
        number: int,
        *,
        buckets: int,
        master: MasterKeys | None,
        advance: Callable[[int], None],
    ) -> None:
        """Create a reader.

        Args:
            logs: Reads the topics.
            names: Names of the topics.
            number: Number of the partition.
            buckets: Number of buckets.
            master: Master keys; None if there are no keys to be read.
            advance: Is told how many more records were read, and how many more were taken; keys
                do not count.
        """
        self._logs = logs
        self._names = names
        self._number = number
        self._master = master
        self._advance = advance
        self._spill = Spill(len(Shelf), buckets)
        self._topics = {
            Shelf.KEYS: names.keys,
            Shelf.STATES: names.changelog,
            Shelf.COMMANDS: names.commands,
            Shelf.OUTCOMES: names.outcomes,
            Shelf.DEAD_LETTERS: names.dead_commands,
            Shelf.EVENTS: names.events,
        }
        self.buckets = range(buckets)

    async def read(
        self,
        check: Callable[[Position | None], None],
        *,
        view_end: int = 0,
        all_topics: bool = True,
    ) -> tuple[Frozen, Kept]:
        """Read everything up to the position that the state table has reached by now.

        Args:
            check: Is given that position, before the rest is read; may raise.
            view_end: As in `Frozen`.
            all_topics: Whether to read more than states and events.

        Returns:
            The positions that the check refers to, and what retention has left.

        Raises:
            PartitionFatal, Transient: As `restore` and `LogReader.read`.
        """
        # Before all else: if a key is missing then, the event that destroyed it is read below.
        keys_end = await self._read_keys()
        # Up to the last stable offset, which is never inside a transaction.
        changelog = self._partition(Shelf.STATES)
        stable = await self._logs.stable_end(changelog)
        stored: Position | None = None
        reserved = position_key(TP(self._names.commands, self._number))
        async for records in self._records(Shelf.STATES, 0, stable):
            for record in readable_records(changelog, records):
                if record.key == reserved:
                    stored = None if record.value is None else decode_position(record.value)
        check(stored)
        position = stored or Position(0)
        # Everything that the commands below the position caused is before these ends: it was
        # written before the position was committed.
        later = [Shelf.EVENTS] if not all_topics else [*Shelf][Shelf.OUTCOMES :]
        ends = await self._logs.end_offsets([self._partition(shelf) for shelf in later])
        first: dict[Shelf, int | None] = {}
        if all_topics:
            async for _ in self._records(Shelf.COMMANDS, 0, position.offset):
                pass
            for shelf, start, source in (
                (Shelf.OUTCOMES, position.outcomes_from, outcome_turn),
                (Shelf.DEAD_LETTERS, position.dead_letters_from, dead_letter_turn),
            ):
                first[shelf] = None
                async for records in self._records(shelf, start, ends[self._partition(shelf)]):
                    if first[shelf] is None:
                        first[shelf] = self._first_offset(map(source, records))
        async for _ in self._records(Shelf.EVENTS, 0, ends[self._partition(Shelf.EVENTS)]):
            pass
        # A key is written before anybody can read what it encrypts, so what is missing after this
        # was destroyed. What is destroyed from now on is kept: it may have made what was read.
        await self._read_keys(keys_end, late=True)
        frozen = Frozen(position.offset, view_end, position.events_from)
        return frozen, await self._kept(position, first)

    def _first_offset(self, sources: Iterable[Source | None]) -> int | None:
        """Return the offset of the first of these that is of this partition.

        It is the lowest: the effects of commands are written in the order of the commands.
        """
        here = (self._names.commands, self._number)
        found = (one for one in sources if one is not None and (one.topic, one.partition) == here)
        return next((one.offset for one in found), None)

    async def _kept(self, position: Position, first: dict[Shelf, int | None]) -> Kept:
        if not first:
            return Kept()
        commands, outcomes, dead_letters = (
            self._partition(shelf) for shelf in (Shelf.COMMANDS, *first)
        )
        begins = await self._logs.begin_offsets([commands, outcomes, dead_letters])

        def lowest(tp: TopicPartition, shelf: Shelf, start: int) -> int:
            if begins[tp] <= start:
                return 0
            found = first[shelf]
            return position.offset if found is None else found

        return Kept(
            commands_from=begins[commands],
            outcomes_from=lowest(outcomes, Shelf.OUTCOMES, position.outcomes_from),
            dead_letters_from=lowest(dead_letters, Shelf.DEAD_LETTERS, position.dead_letters_from),
        )

    def records(self, shelf: Shelf, bucket: int) -> Iterator[Record]:
        """Yield the records of one kind in a bucket, in the order of their offsets."""
        topic, taken = self._topics[shelf], 0
        for item in self._spill.read(shelf, bucket):
            offset, key, value, headers = _decode(item)
            yield Record(topic, self._number, offset, 0, key, value, headers)
            taken += 1
            if taken % _ADVANCE_RECORDS == 0:
                self._advance(_ADVANCE_RECORDS)
        self._advance(taken % _ADVANCE_RECORDS)

    def states(self, bucket: int) -> dict[bytes, bytes]:
        """Return the last state of each aggregate in a bucket, and its last parked commands.

        The keys are those of the changelog.
        """
        last: dict[bytes, bytes] = {}
        for record in self.records(Shelf.STATES, bucket):
            if record.key is None:
                continue  # it cannot be read
            if record.value is None:
                last.pop(record.key, None)
            elif not record.key.startswith(RESERVED) or record.key.startswith(PARKED_PREFIX):
                last[record.key] = record.value
        return last

    def keys(self, bucket: int) -> PartitionKeys | None:
        """Return the data keys of the aggregates in a bucket; None without a master key."""
        if self._master is None:
            return None
        keys = PartitionKeys(self._master)
        for item in self._spill.read(Shelf.KEYS, bucket):
            _, key, wrapped, _ = _decode(item)
            assert key is not None
            keys.apply(key, wrapped)
        return keys

    def close(self) -> None:
        """Remove what was read from the disk."""
        self._spill.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _read_keys(self, start: int = 0, *, late: bool = False) -> int:
        """Read keys to the end that includes open transactions, and return it.

        If it is `late`, those that are destroyed stay.
        """
        if self._master is None:
            return 0
        tp = self._partition(Shelf.KEYS)
        end = (await self._logs.end_offsets([tp]))[tp]
        async for records in self._logs.read(tp, start, end):
            kept = [one for one in records if one.key and not (late and one.value is None)]
            self._add(Shelf.KEYS, kept)
        return end

    async def _records(self, shelf: Shelf, start: int, end: int) -> AsyncIterator[Sequence[Any]]:
        async for records in self._logs.read(self._partition(shelf), start, end):
            self._add(shelf, records)
            self._advance(len(records))
            yield records

    def _add(self, shelf: Shelf, records: Iterable[Any]) -> None:
        for one in records:
            item = _encode((one.offset, one.key, one.value, one.headers))
            key = one.key or b""
            self._spill.add(shelf, parked_id(key) or key, item)

    def _partition(self, shelf: Shelf) -> TopicPartition:
        return TopicPartition(self._topics[shelf], self._number)
