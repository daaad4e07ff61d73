"""The records of one aggregate in every topic, and what personal data can be read in them.

What is sealed is tried with every key of the aggregate that still lies on the keys topic, destroyed
or not: compaction takes its time. The dates follow from the records' timestamps and from how the
topics are configured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Generic, TypeVar

import orjson
from aiokafka.structs import TopicPartition
from pydantic.alias_generators import to_snake

from models.messages import Event
from streams.aggregate import Aggregate, TopicNames
from streams.audit.erasure_report import ErasureFinding, ErasureReport
from streams.encryption.cipher import (
    PERSONAL,
    DecryptionError,
    is_sealed_state,
    open_dead_letter,
    open_event,
    open_state,
)
from streams.encryption.keys import PartitionKeys, master_key
from streams.kafka.clients import new_producer, started
from streams.kafka.dead_letters import SEALED
from streams.kafka.log_reader import LogReader
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record
from streams.kafka.topics import TopicSpec
from streams.settings import Settings
from streams.state.snapshot import decode_snapshot

S = TypeVar("S")

# The cleaner looks for work every 15 s, and the retention check every 5 minutes (the defaults).
_SLACK = timedelta(minutes=6)
_NEVER = timedelta(days=10_000)

# A record with this key and no value is nobody's. Written to a compacted topic it makes Kafka roll
# the segment: the one that is written to is never compacted, and only a write can end it.
_ROLL = b"\x00roll"


class _Holds(Enum):
    """What a record holds of the aggregate's personal data."""

    NOTHING = "nothing, or nothing that can be decrypted"
    SEALED = "sealed, and a key that opens it is left"
    PLAIN = "in the clear"


class PersonalDataSearch(Generic[S]):
    """Looks through the topics for one aggregate; `run` it once."""

    def __init__(
        self,
        settings: Settings,
        aggregate: Aggregate[S],
        names: TopicNames,
        logs: LogReader,
        configs: Mapping[str, TopicSpec],
        aggregate_id: str,
    ) -> None:
        self._settings = settings
        self._aggregate = aggregate
        self._names = names
        self._logs = logs
        self._configs = configs
        self._id = aggregate_id
        self._key = aggregate_id.encode()
        self._partition = partition_of(self._key, settings.partitions)
        self._now = datetime.now(timezone.utc)
        self._keys: list[bytes] = []  # all that are left, destroyed or not
        self._keys_gone_by: datetime | None = None
        self._erased_at: int | None = None  # the sequence of the event that erased it
        personal = {name for event in aggregate.events.values() for name in event.personal}
        self._personal = personal | {to_snake(name) for name in personal}

    async def run(self) -> ErasureReport:
        """All topics, in an order in which each can use what those before it have told."""
        names = self._names
        keys = await self._look_for_keys()
        events = await self._look(names.events, self._in_event)
        outcomes = await self._look(names.outcomes, lambda _: _Holds.NOTHING)
        outcomes.note = "outcomes carry no personal data"
        changelog = await self._look_into_changelog()
        dead = await self._look(names.dead_commands, self._in_letter, everywhere=True)
        dead_views = await self._look(names.dead_views, self._in_event)
        commands = await self._look(names.commands, self._in_command, everywhere=True)
        if commands.readable:
            commands.note = "what producers wrote stays until the topic's retention ends"
        places = [keys, events, outcomes, changelog, dead, dead_views, commands]
        return ErasureReport(self._id, self._erased_at is not None, places)

    async def _look_for_keys(self) -> ErasureFinding:
        place, opener = ErasureFinding(self._names.keys), PartitionKeys(master_key(self._settings))
        last: Record | None = None
        async for record in self._records(place.name):
            place.records += 1
            last = record
            if record.value is not None:
                self._keys.append(opener.unwrap(self._key, record.value))
        place.readable = len(self._keys)
        if self._keys and last is not None and last.value is None:
            place.expires_at = self._keys_gone_by = await self._compacted_by(place, last)
        return place

    async def _look_into_changelog(self) -> ErasureFinding:
        place = ErasureFinding(self._names.changelog)
        holds, last = _Holds.NOTHING, None
        sealed = plain = 0
        async for record in self._records(place.name):
            place.records += 1
            holds, last = self._in_state(record), record
            sealed += holds is _Holds.SEALED
            plain += holds is _Holds.PLAIN
        place.readable = sealed + plain
        if last is not None and place.readable:
            superseded = holds is _Holds.NOTHING
            compacted = await self._compacted_by(place, last) if superseded else None
            place.expires_at = compacted if plain else _earlier(compacted, self._keys_gone_by)
        return place

    async def _look(
        self, topic: str, holds: Callable[[Record], _Holds], *, everywhere: bool = False
    ) -> ErasureFinding:
        """A topic that only its retention shortens."""
        place = ErasureFinding(topic)
        dates: list[datetime | None] = []
        async for record in self._records(topic, everywhere=everywhere):
            place.records += 1
            found = holds(record)
            if found is not _Holds.NOTHING:
                expires = self._after(topic, record, "segment.ms", "retention.ms")
                by_key = self._keys_gone_by if found is _Holds.SEALED else None
                dates.append(_earlier(expires and expires + _SLACK, by_key))
        place.readable = len(dates)
        if None not in dates:
            place.expires_at = max((date for date in dates if date is not None), default=None)
        return place

    async def _records(self, topic: str, *, everywhere: bool = False) -> AsyncIterator[Record]:
        """The aggregate's records; `everywhere` also those under other keys that name it."""
        quoted = orjson.dumps(self._id)
        numbers: Iterable[int] = (
            range(self._settings.partitions) if everywhere else (self._partition,)
        )
        for number in numbers:
            partition = TopicPartition(topic, number)
            end = (await self._logs.end_offsets([partition]))[partition]
            async for records in self._logs.read(partition, 0, end):
                for record in records:
                    if record.key == self._key or (everywhere and quoted in (record.value or b"")):
                        yield record

    def _in_event(self, record: Record) -> _Holds:
        data = _object_in(record)
        if data is None:
            return _Holds.PLAIN
        event: type[Event] | None = self._aggregate.events.get(str(data.get("type")))
        if event is not None and event.erases:
            self._erased_at = data["sequence"]
        personal = () if event is None else event.personal
        if PERSONAL in data:
            return self._tried(lambda key: open_event(dict(data), personal, key))
        return _Holds.PLAIN if any(data.get(name) for name in personal) else _Holds.NOTHING

    def _in_state(self, record: Record) -> _Holds:
        value = record.value
        if value is None:
            return _Holds.NOTHING
        if is_sealed_state(value):
            return self._tried(lambda key: open_state(value, self._key, key))
        version = decode_snapshot(self._aggregate, value).version
        ended = self._erased_at is not None and version >= self._erased_at
        return _Holds.NOTHING if ended else _Holds.PLAIN

    def _in_letter(self, record: Record) -> _Holds:
        value = record.value
        if value is not None and SEALED in dict(record.headers):
            return self._tried(lambda key: open_dead_letter(value, record.key or b"", key))
        return self._in_command(record)

    def _in_command(self, record: Record) -> _Holds:
        """Whatever is no object may be anything."""
        data = _object_in(record)
        if data is None:
            return _Holds.PLAIN if record.value else _Holds.NOTHING
        return _Holds.PLAIN if self._personal & data.keys() else _Holds.NOTHING

    def _tried(self, opened_with: Callable[[bytes], object]) -> _Holds:
        for key in self._keys:
            try:
                opened_with(key)
            except DecryptionError:
                continue
            return _Holds.SEALED
        return _Holds.NOTHING

    async def _compacted_by(self, place: ErasureFinding, last: Record) -> datetime | None:
        """When what lies before the aggregate's last record will be gone from a compacted topic."""
        rolled = self._after(place.name, last, "segment.ms")
        by = self._after(place.name, last, "segment.ms", "max.compaction.lag.ms")
        if rolled is None or by is None:
            return None
        place.note = "Kafka compacts behind the segment that is written to: prove again after that"
        if self._now > rolled:
            await self._roll(place.name)
        return max(by, self._now) + _SLACK

    async def _roll(self, topic: str) -> None:
        async with started(new_producer(self._settings), self._settings) as producer:
            await producer.send_and_wait(topic, None, _ROLL, partition=self._partition)

    def _after(self, topic: str, record: Record, *durations: str) -> datetime | None:
        """The record's time and these settings of its topic, in milliseconds; None for never."""
        configs = self._configs[topic].configs
        milliseconds = [int(configs[name]) for name in durations]
        if min(milliseconds) < 0 or sum(milliseconds) > _NEVER / timedelta(milliseconds=1):
            return None
        at = datetime.fromtimestamp(record.timestamp / 1000, timezone.utc)
        return at + timedelta(milliseconds=sum(milliseconds))


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier of two dates of which None is never."""
    if one is None or other is None:
        return one or other
    return min(one, other)


def _object_in(record: Record) -> dict[str, Any] | None:
    try:
        data = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    return data if isinstance(data, dict) else None
