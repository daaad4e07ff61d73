"""Read what could not be decided: parked commands, and dead letters of the command topic.

Nothing is written. Workers may run meanwhile: this is what was committed when it was read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from aiokafka.structs import TopicPartition

from models.messages import Source, command_id_at
from streams.aggregate import TopicNames
from streams.commands.reader import command_id_in
from streams.encryption.cipher import DecryptionError, open_dead_letter, open_parked
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.dead_letters import (
    CODE,
    CUT,
    REASON,
    SOURCE_TIMESTAMP,
    WITHHELD,
    dead_letter_source,
    is_sealed,
    marked_offset,
    opened_letter,
    split_headers,
)
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.records import Record
from streams.progress import ProgressCallback, no_progress
from streams.settings import Settings
from streams.state.parked import (
    PARKED_PREFIX,
    Content,
    ParkedCommand,
    ParkedQueue,
    decode_content,
    decode_parked,
    parked_id,
)

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class ParkedAggregate:
    """The parked commands of one aggregate."""

    partition: int
    aggregate_id: str
    parked: ParkedQueue
    contents: Sequence[Content | None]
    """Value and headers of each; None if it is encrypted and cannot be decrypted here."""


@dataclass(frozen=True)
class DeadCommand:
    """A dead letter of the command topic."""

    partition: int
    offset: int
    """Its own, on the topic of the dead letters."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """Those of the command's record."""
    code: str
    reason: str
    source: Source
    timestamp: int
    """Of the command's record, in milliseconds."""
    is_whole: bool
    """Whether `value` is all of the record's: not cut, left out, or still encrypted."""
    sent_again: bool
    was_sealed: bool
    """Whether it was encrypted: if the user is erased by now, it may not be sent."""

    @property
    def command_id(self) -> UUID:
        """Id of the command: that of its value, or the one that was made for it."""
        record = Record(*_place(self.source), self.timestamp, self.key, self.value)
        return command_id_in(record) or command_id_at(self.source)


@dataclass(frozen=True)
class FailedCommands:
    """Everything that could not be decided, by partition and offset."""

    parked: Sequence[ParkedAggregate]
    dead: Sequence[DeadCommand]


async def read_failed(
    settings: Settings, names: TopicNames, progress: ProgressCallback = no_progress
) -> FailedCommands:
    """Read all partitions; decrypt what the master key of the settings opens.

    Raises:
        Fatal: Kafka does not answer, or the master key is missing or another one.
        Transient, KafkaError: reading failed.
    """
    topics = (names.changelog, names.dead_commands)
    numbers = range(settings.partitions)
    read = [TopicPartition(topic, number) for topic in topics for number in numbers]
    parked: list[ParkedAggregate] = []
    dead: list[DeadCommand] = []
    async with open_logs(settings, read) as logs, open_key_ring(settings, names) as ring:
        for number in numbers:
            parked += await _read_parked(logs, names, number, ring, progress)
            dead += await read_dead_letters(logs, names, number, ring, progress)
    return FailedCommands(parked, dead)


async def read_dead_letters(
    logs: LogReader,
    names: TopicNames,
    number: int,
    ring: KeyRing | None,
    progress: ProgressCallback = no_progress,
) -> list[DeadCommand]:
    """Read the dead letters of one partition; records that are none are left out."""
    letters: list[Record] = []
    marked: set[int | None] = set()
    async for record in _records(logs, TopicPartition(names.dead_commands, number), progress):
        marked.add(marked_offset(record))
        if dead_letter_source(record) is not None:
            letters.append(record)
    if ring is not None:
        await ring.ensure_loaded(number, {one.key for one in letters if one.key is not None})
    return [_dead_command(letter, letter.offset in marked, ring) for letter in letters]


async def _read_parked(
    logs: LogReader,
    names: TopicNames,
    number: int,
    ring: KeyRing | None,
    progress: ProgressCallback,
) -> list[ParkedAggregate]:
    last: dict[bytes, bytes | None] = {}
    async for record in _records(logs, TopicPartition(names.changelog, number), progress):
        if record.key is not None and record.key.startswith(PARKED_PREFIX):
            last[record.key] = record.value
    found = {
        parked_id(key) or b"": parked
        for key, parked in ((key, decode_parked(value)) for key, value in last.items())
        if parked is not None
    }
    if ring is not None:
        await ring.ensure_loaded(number, found.keys())
    return [
        ParkedAggregate(
            number,
            id_.decode(errors="replace"),
            parked,
            [_content(id_, one, number, ring) for one in parked.commands],
        )
        for id_, parked in sorted(found.items(), key=lambda item: item[1].first.offset)
    ]


async def _records(
    logs: LogReader, partition: TopicPartition, progress: ProgressCallback
) -> AsyncIterator[Record]:
    end = await logs.stable_end(partition)
    async for records in logs.read(partition, 0, end):
        progress(f"Reading {partition.topic}", records[-1].offset + 1, end)
        for record in records:
            yield record


def _content(
    aggregate_id: bytes, one: ParkedCommand, number: int, ring: KeyRing | None
) -> Content | None:
    key = None if ring is None else ring.of(number).get(aggregate_id)
    try:
        return decode_content(open_parked(one.content, aggregate_id, one.offset, key))
    except DecryptionError:
        return None


def _dead_command(letter: Record, sent_again: bool, ring: KeyRing | None) -> DeadCommand:
    source = dead_letter_source(letter)
    assert source is not None, "it is a dead letter"
    value, headers, is_whole = letter.value, letter.headers, True
    if is_sealed(headers) and value is not None:
        key = letter.key or b""
        data_key = None if ring is None else ring.of(letter.partition).get(key)
        try:
            if data_key is None:
                raise DecryptionError("its key is not here")
            value, opened = opened_letter(
                value, headers, partial(open_dead_letter, aggregate_id=key, key=data_key)
            )
            headers = tuple(opened)
        except DecryptionError:
            value, is_whole = None, False
    of_record, own = split_headers(headers)
    said = dict(own)
    return DeadCommand(
        partition=letter.partition,
        offset=letter.offset,
        key=letter.key,
        value=value,
        headers=tuple(of_record),
        code=(said.get(CODE) or b"").decode(errors="replace"),
        reason=(said.get(REASON) or b"").decode(errors="replace"),
        source=source,
        timestamp=_number(said.get(SOURCE_TIMESTAMP)),
        # Older versions wrote that it was cut before the code.
        is_whole=is_whole and not {*said, *dict(of_record)} & {CUT, WITHHELD},
        sent_again=sent_again,
        was_sealed=is_sealed(letter.headers),
    )


def _number(text: bytes | None) -> int:
    try:
        return int(text or b"")
    except ValueError:
        return 0


def _place(source: Source) -> tuple[str, int, int]:
    return source.topic, source.partition, source.offset
