"""Searches every topic for records of one aggregate and the personal data readable in them.

Sealed data is tried with every key of the aggregate that is still on the keys topic. A destroyed
key is there, too, until compaction removes it. The expiries follow from the records' timestamps and
the configuration of the topics.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

import orjson
from aiokafka.structs import TopicPartition
from pydantic.alias_generators import to_snake

from models.messages import Event
from streams import tracing
from streams.aggregate import Aggregate, TopicNames
from streams.audit.erasure_report import NEVER, ErasureFinding, ErasureReport, Expiry
from streams.audit.mentions import mentions
from streams.commands.control import SIGNATURE, has_form_of_control
from streams.commands.reader import REPEATABLE
from streams.encryption.cipher import (
    PERSONAL,
    DecryptionError,
    is_sealed_state,
    open_dead_letter,
    open_event,
    open_parked,
    open_state,
)
from streams.encryption.keys import master_keys, no_master_key
from streams.kafka.clients import new_producer, started
from streams.kafka.dead_letters import OWN_HEADERS, Headers, is_sealed, split_headers
from streams.kafka.log_reader import LogReader
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record
from streams.kafka.topics import DAY_MS, TopicSpec
from streams.settings import Settings
from streams.state.parked import decode_content, decode_parked, parked_key
from streams.state.snapshot import decode_remembered

S = TypeVar("S")

# Kafka deletes a little later than it may: by default the log cleaner runs every 15 s, and the
# retention check every 5 minutes.
_SLACK = timedelta(minutes=6)
_LONGEST_DELAY_MS = 10_000 * DAY_MS  # a longer one counts as never

# Names of headers that carry no personal data: ids, numbers, and what this project writes.
_KNOWN_HEADERS = OWN_HEADERS | REPEATABLE.keys() | {tracing.HEADER, SIGNATURE}

# Key of a record without a value, which belongs to no aggregate. Written to a compacted topic, it
# makes Kafka roll the segment: the active segment is never compacted, and only a write ends it.
_ROLL_KEY = b"\x00roll"


class _PersonalData(Enum):
    """Personal data of the aggregate in a record."""

    NONE = "none, or none that can be decrypted"
    SEALED = "sealed, and a key that opens it is left"
    PLAIN = "in plain text"


class PersonalDataSearch(Generic[S]):
    """Searches the topics for one aggregate; call `run` once."""

    def __init__(
        self,
        settings: Settings,
        aggregate: Aggregate[S],
        names: TopicNames,
        logs: LogReader,
        configs: Mapping[str, TopicSpec],
        aggregate_id: str,
    ) -> None:
        """Prepare a search.

        Args:
            settings: Configuration of the deployment.
            aggregate: Kind of the aggregate.
            names: Names of its topics.
            logs: Reads those topics.
            configs: The configuration that they have, by topic.
            aggregate_id: Id of the aggregate to search for.
        """
        self._settings = settings
        self._aggregate = aggregate
        self._names = names
        self._logs = logs
        self._configs = configs
        self._id = aggregate_id
        self._key = aggregate_id.encode()
        self._partition = partition_of(self._key, settings.partitions)
        self._now = datetime.now(timezone.utc)
        self._keys: list[bytes] = []  # all that are still on the topic, destroyed or not
        self._keys_expire_at = NEVER
        self._is_parked = False
        self._erased_at: int | None = None  # sequence of the event that erased the aggregate
        personal = {name for event in aggregate.events.values() for name in event.personal}
        # Names of fields that are known to be none: a producer may have called an email anything.
        fields = {
            field.alias or name
            for command in aggregate.commands.values()
            for name, field in command.model_fields.items()
        } - personal
        self._impersonal = {"type", *fields, *map(to_snake, fields)}

    async def run(self) -> ErasureReport:
        """Search all topics and report the findings.

        Raises:
            Fatal: The master key is missing.
            Transient, KafkaError: Kafka failed.
        """
        names = self._names
        # The order matters: the keys open the other topics' records, and the events tell the
        # version from which on states are without personal data.
        keys = await self._find_keys()
        events = await self._search(names.events, self._in_event)
        outcomes = await self._search(names.outcomes, lambda _: _PersonalData.NONE)
        outcomes.note = "outcomes carry no personal data"
        changelog = await self._search_changelog()
        dead_commands = await self._search(names.dead_commands, self._in_dead_letter, any_key=True)
        dead_views = await self._search(names.dead_views, self._in_event)
        commands = await self._search(names.commands, self._in_command, any_key=True)
        if commands.readable:
            commands.note = "what producers wrote stays until the topic's retention ends"
        findings = [keys, events, outcomes, changelog, dead_commands, dead_views, commands]
        return ErasureReport(self._id, self._erased_at is not None, findings)

    async def _find_keys(self) -> ErasureFinding:
        finding = ErasureFinding(self._names.keys)
        master = master_keys(self._settings)
        last: Record | None = None
        unopened = 0
        async for record in self._records(finding):
            last = record
            if record.value is None:
                continue
            if master is None:
                raise no_master_key()
            try:
                self._keys.append(master.unwrap(self._key, record.value))
            except DecryptionError:  # whoever has another master key may open it
                unopened += 1
        finding.readable = len(self._keys)
        if finding.unseen:  # one of them may be a key
            return finding
        finding.unseen = unopened
        if (self._keys or unopened) and last is not None and last.value is None:
            finding.expires_at = self._keys_expire_at = await self._compaction(finding, last)
        if unopened:
            finding.note = (
                "some are wrapped with another master key: a former one can be given as "
                "CQRS_SECOND_MASTER_KEY"
            )
        return finding

    async def _search_changelog(self) -> ErasureFinding:
        """Search the records of the state and of the parked commands."""
        finding = ErasureFinding(self._names.changelog)
        search = {self._key: self._in_state, parked_key(self._key): self._in_parked}
        seen: dict[bytes, list[_PersonalData]] = {key: [] for key in search}
        last: dict[bytes, Record] = {}
        async for record in self._records(finding, keys=search.keys()):
            assert record.key is not None, "it is one of these"
            seen[record.key].append(search[record.key](record))
            last[record.key] = record
        expiries: list[Expiry] = []
        for key, found in seen.items():
            readable = [one for one in found if one is not _PersonalData.NONE]
            finding.readable += len(readable)
            if readable and not finding.unseen:
                superseded = found[-1] is _PersonalData.NONE
                expiry = await self._compaction(finding, last[key]) if superseded else NEVER
                plain = _PersonalData.PLAIN in readable
                expiries.append(expiry if plain else min(expiry, self._keys_expire_at))
        if expiries:
            finding.expires_at = max(expiries)
        if self._is_parked:
            finding.note = "commands are parked: see `cqrs dead list`, then replay or drop them"
        return finding

    async def _search(
        self, topic: str, data_in: Callable[[Record], _PersonalData], *, any_key: bool = False
    ) -> ErasureFinding:
        """Search a topic that is shortened by its retention only.

        Args:
            topic: Name of the topic.
            data_in: Finds the personal data in a record.
            any_key: As for `_records`.
        """
        finding = ErasureFinding(topic)
        expiries: list[Expiry] = []
        async for record in self._records(finding, any_key=any_key):
            found = data_in(record)
            if found is _PersonalData.NONE:
                continue
            expiry = self._retained(topic, record)
            if found is _PersonalData.SEALED:
                expiry = min(expiry, self._keys_expire_at)
            expiries.append(expiry)
        finding.readable = len(expiries)
        if finding.unseen:
            expiries.append(finding.expires_at)
        finding.expires_at = max(expiries, default=NEVER)
        return finding

    async def _records(
        self,
        finding: ErasureFinding,
        *,
        any_key: bool = False,
        keys: Collection[bytes] | None = None,
    ) -> AsyncIterator[Record]:
        """Yield the aggregate's records in a topic, and count them in its finding.

        `keys` are those to look for, if that is more than the aggregate's id.

        With `any_key` also those with other keys, in all partitions, whose value contains its id.
        A record that cannot be read may be anybody's, and counts as unseen.
        """
        topic, expiries = finding.name, []
        wanted = keys or (self._key,)
        numbers: Iterable[int] = range(self._settings.partitions) if any_key else (self._partition,)
        for number in numbers:
            partition = TopicPartition(topic, number)
            end = (await self._logs.end_offsets([partition]))[partition]
            async for records in self._logs.read(partition, 0, end):
                for record in records:
                    if record.unreadable is not None:
                        finding.unseen += 1
                        finding.note = f"some records cannot be read: {record.unreadable.reason}"
                        expiries.append(self._retained(topic, record))
                    elif record.key in wanted or (any_key and mentions(record.value, self._id)):
                        finding.records += 1
                        yield record
        finding.expires_at = max(expiries, default=NEVER)

    def _in_event(self, record: Record) -> _PersonalData:
        data = _object_in(record.value)
        if data is None:
            return _PersonalData.PLAIN
        event: type[Event] | None = self._aggregate.events.get(str(data.get("type")))
        if event is not None and event.erases:
            sequence = data.get("sequence")
            self._erased_at = sequence if isinstance(sequence, int) else self._erased_at
        if PERSONAL in data:
            personal = () if event is None else event.personal
            return self._if_opened(lambda key: open_event(dict(data), personal, key))
        # Of one of another program nobody knows what its fields are.
        readable = event is None or any(data.get(name) for name in event.personal)
        return _PersonalData.PLAIN if readable else _PersonalData.NONE

    def _in_state(self, record: Record) -> _PersonalData:
        value = record.value
        if value is None:
            return _PersonalData.NONE
        if is_sealed_state(value):
            return self._if_opened(lambda key: open_state(value, self._key, key))
        try:
            version = decode_remembered(value)[0]
        except ValueError:
            return _PersonalData.PLAIN  # it is no state, so it may be anything
        erased = self._erased_at is not None and version >= self._erased_at
        return _PersonalData.NONE if erased else _PersonalData.PLAIN

    def _in_parked(self, record: Record) -> _PersonalData:
        try:
            parked = decode_parked(record.value)
        except ValueError:
            return _PersonalData.PLAIN  # it is none of ours, so it may be anything
        found = _PersonalData.NONE
        self._is_parked = parked is not None
        for one in () if parked is None else parked.commands:
            content, offset = one.content, one.offset
            if is_sealed_state(content):
                opened = self._if_opened(partial(open_parked, content, self._key, offset))
                found = opened if found is _PersonalData.NONE else found
            else:
                command = decode_content(content)
                plain = self._in_plain(command.value, command.headers)
                found = plain if plain is _PersonalData.PLAIN else found
        return found

    def _in_dead_letter(self, record: Record) -> _PersonalData:
        value, (of_record, _) = record.value, split_headers(record.headers)
        if value is None or not is_sealed(record.headers):
            return self._in_plain(value, of_record)
        if self._in_plain(None, of_record) is _PersonalData.PLAIN:
            return _PersonalData.PLAIN  # an older version sealed the value alone
        return self._if_opened(lambda key: open_dead_letter(value, record.key or b"", key))

    def _in_command(self, record: Record) -> _PersonalData:
        return self._in_plain(record.value, record.headers)

    def _in_plain(self, value: bytes | None, headers: Headers) -> _PersonalData:
        """Find personal data in what a producer wrote: all that is not known to be none."""
        is_known = not value or has_form_of_control(value) or self._is_impersonal(value)
        is_known = is_known and all(name in _KNOWN_HEADERS for name, _ in headers)
        return _PersonalData.NONE if is_known else _PersonalData.PLAIN

    def _is_impersonal(self, value: bytes) -> bool:
        """Whether a value has fields of commands alone, none of them personal or nested."""
        data = _object_in(value)
        return (
            data is not None
            and data.keys() <= self._impersonal
            and not any(isinstance(one, (dict, list)) for one in data.values())
        )

    def _if_opened(self, open_with: Callable[[bytes], object]) -> _PersonalData:
        """Return SEALED if one of the keys opens the data, else NONE."""
        for key in self._keys:
            try:
                open_with(key)
            except DecryptionError:
                continue
            return _PersonalData.SEALED
        return _PersonalData.NONE

    async def _compaction(self, finding: ErasureFinding, last: Record) -> Expiry:
        """Return when a compacted topic will have lost what is before the aggregate's last record.

        Writes a record if Kafka needs one to roll the active segment.
        """
        rolled = self._expiry(finding.name, last, "segment.ms")
        compacted = self._expiry(finding.name, last, "segment.ms", "max.compaction.lag.ms")
        if NEVER in (rolled, compacted):
            return NEVER
        finding.note = "Kafka does not compact the active segment: prove again after that time"
        now = Expiry(self._now)
        if now > rolled:
            await self._roll(finding.name)
        return max(compacted, now) + _SLACK

    async def _roll(self, topic: str) -> None:
        async with started(new_producer(self._settings), self._settings) as producer:
            await producer.send_and_wait(topic, None, _ROLL_KEY, partition=self._partition)

    def _retained(self, topic: str, record: Record) -> Expiry:
        """Return when retention will have removed a record; NEVER from a compacted topic."""
        if topic in (self._names.keys, self._names.changelog):
            return NEVER
        return self._expiry(topic, record, "segment.ms", "retention.ms") + _SLACK

    def _expiry(self, topic: str, record: Record, *delays: str) -> Expiry:
        """Add delays to a record's time; each is the name of a topic setting in milliseconds.

        Returns:
            The sum; NEVER if a delay is negative (in Kafka: unlimited) or the sum is too long.
        """
        configs = self._configs[topic].configs
        milliseconds = [int(configs[name]) for name in delays]
        if min(milliseconds) < 0 or sum(milliseconds) > _LONGEST_DELAY_MS:
            return NEVER
        written = datetime.fromtimestamp(record.timestamp / 1000, timezone.utc)
        return Expiry(written + timedelta(milliseconds=sum(milliseconds)))


def _object_in(value: bytes | None) -> dict[str, Any] | None:
    try:
        data = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return data if isinstance(data, dict) else None
