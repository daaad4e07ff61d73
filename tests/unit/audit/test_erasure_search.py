"""Where personal data of an erased user is found, and until when; without servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, cast
from uuid import uuid4

import orjson
import pytest
from aiokafka.structs import TopicPartition
from pydantic import SecretStr

from agents.users import USERS
from models.errors import Fatal, Poison
from models.events import UserErased, UserEvent
from streams.aggregate import TopicNames
from streams.audit.erasure_report import NEVER, ErasureReport, Expiry
from streams.audit.erasure_search import PersonalDataSearch
from streams.encryption.keys import PartitionKeys, master_keys, new_master_key
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import Headers, dead_letter
from streams.kafka.log_reader import LogReader
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record
from streams.kafka.topics import TopicSpec
from streams.settings import Settings
from streams.state.parked import (
    Content,
    ParkedCommand,
    ParkedQueue,
    encode_content,
    encode_parked,
    park,
    parked_key,
)
from streams.state.snapshot import Snapshot, encode_snapshot
from tests.unit.audit.histories import line
from tests.unit.samples import ACTIVE, ANNA, ERASED, record

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
USER = "user-1"
NAMES = TopicNames("", "users")
SETTINGS = Settings(partitions=2, encrypt_personal_data=True, master_key=new_master_key())
PARTITION = partition_of(USER.encode(), SETTINGS.partitions)
# Now, so that no segment is old enough to be rolled by the search.
WRITTEN_MS = int(time.time() * 1000)
SLACK = timedelta(minutes=6)

CONFIGS: Mapping[str, Mapping[str, int]] = {
    NAMES.keys: {"segment.ms": 10 * MINUTE, "max.compaction.lag.ms": 15 * MINUTE},
    NAMES.changelog: {"segment.ms": HOUR, "max.compaction.lag.ms": 6 * HOUR},
    NAMES.events: {"segment.ms": DAY, "retention.ms": -1},
    NAMES.outcomes: {"segment.ms": DAY, "retention.ms": 7 * DAY},
    NAMES.dead_commands: {"segment.ms": DAY, "retention.ms": 14 * DAY},
    NAMES.dead_views: {"segment.ms": DAY, "retention.ms": 14 * DAY},
    NAMES.commands: {"segment.ms": DAY, "retention.ms": 7 * DAY},
}


DROP = {"type": "DropParked", "id": str(uuid4()), "aggregateId": USER, "first": 1, "through": 2}


class Logs:
    """Topics of a user: `add` appends a record."""

    def __init__(self) -> None:
        self._records: dict[TopicPartition, list[Record]] = {}

    def add(self, topic: str, value: bytes | None, key: str = USER, headers: Headers = ()) -> None:
        partition = partition_of(key.encode(), SETTINGS.partitions)
        log = self._records.setdefault(TopicPartition(topic, partition), [])
        log.append(line(topic, len(log), value, key.encode(), headers, partition, WRITTEN_MS))

    def add_parked(self, parked: ParkedQueue | None) -> None:
        log = self._records.setdefault(TopicPartition(NAMES.changelog, PARTITION), [])
        key, value = parked_key(USER.encode()), encode_parked(parked)
        log.append(line(NAMES.changelog, len(log), value, key, (), PARTITION, WRITTEN_MS))

    def add_unreadable(self, topic: str) -> None:
        log = self._records.setdefault(TopicPartition(topic, PARTITION), [])
        poison = Poison("oversized", "too large")
        log.append(Record(topic, PARTITION, len(log), WRITTEN_MS, None, None, (), poison))

    def cut(self, topic: str, records: int) -> None:
        """Keep only the first records of the user's partition."""
        del self._records[TopicPartition(topic, PARTITION)][records:]

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {one: len(self._records.get(one, ())) for one in partitions}

    async def read(
        self, partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Any]]:
        yield self._records.get(partition, [])[start:end]


async def search(
    logs: Logs,
    configs: Mapping[str, Mapping[str, int]] = CONFIGS,
    settings: Settings = SETTINGS,
) -> ErasureReport:
    specs = {
        topic: TopicSpec(topic, 2, {name: str(value) for name, value in config.items()})
        for topic, config in configs.items()
    }
    searching = PersonalDataSearch(settings, USERS, NAMES, cast(LogReader, logs), specs, USER)
    return await searching.run()


def readable(report: ErasureReport) -> dict[str, tuple[int, Expiry]]:
    """Return number and expiry of the readable records, by topic."""
    return {one.name: (one.readable, one.expires_at) for one in report.findings if one.readable}


def after(*milliseconds: int) -> Expiry:
    written = datetime.fromtimestamp(WRITTEN_MS / 1000, timezone.utc)
    return Expiry(written + timedelta(milliseconds=sum(milliseconds))) + SLACK


KEY_COMPACTED = after(10 * MINUTE, 15 * MINUTE)


def erased(*, encrypt: bool) -> Logs:
    """Return the topics of a user with one event and state, who was erased afterwards."""
    logs, keys = Logs(), PartitionKeys(master_keys(SETTINGS))
    sealer = PartitionSealer(keys, encrypt=encrypt)
    events: tuple[UserEvent, ...] = (ANNA, UserErased())
    for version, (event, state) in enumerate(zip(events, (ACTIVE, ERASED), strict=True), 1):
        logs.add(NAMES.events, sealer.seal_event(record(event, version)))
        snapshot = encode_snapshot(Snapshot(state, version, ()))
        logs.add(NAMES.changelog, sealer.seal_state(USER.encode(), snapshot))
        for change in sealer.changes():
            logs.add(NAMES.keys, change.value)
        sealer.clear()
    return logs


async def test_a_user_without_records_is_gone_but_not_erased() -> None:
    report = await search(Logs())
    assert not report.erased
    assert {finding.verdict for finding in report.findings} == {"gone"}


async def test_a_key_that_does_not_open_was_not_looked_at() -> None:
    """It may be one of another master key."""
    logs = erased(encrypt=True)
    logs.add(NAMES.keys, b"damaged")
    report = await search(logs)
    (keys,) = (one for one in report.findings if one.name == NAMES.keys)
    assert (keys.readable, keys.unseen, keys.ok) == (1, 1, False)


async def test_sealed_data_expires_with_its_key() -> None:
    report = await search(erased(encrypt=True))
    assert report.erased
    found = readable(report)
    assert found == {
        NAMES.keys: (1, KEY_COMPACTED),
        NAMES.events: (1, KEY_COMPACTED),
        NAMES.changelog: (1, KEY_COMPACTED),  # before its own compaction
    }


async def test_sealed_data_is_gone_after_its_key() -> None:
    logs = erased(encrypt=True)
    logs.cut(NAMES.keys, 0)
    assert readable(await search(logs)) == {}


async def test_plain_data_stays_until_retention_or_compaction_removes_it() -> None:
    logs = erased(encrypt=False)
    logs.add(NAMES.commands, b'{"aggregateId":"user-1","email":"anna@example.org"}')
    assert readable(await search(logs)) == {
        NAMES.events: (1, NEVER),
        NAMES.changelog: (1, after(HOUR, 6 * HOUR)),
        NAMES.commands: (1, after(DAY, 7 * DAY)),
    }


async def test_states_of_other_program_versions_are_found() -> None:
    logs = erased(encrypt=False)
    logs.add(NAMES.changelog, encode_snapshot(Snapshot(["anna@example.org"], 1, ())))
    assert readable(await search(logs))[NAMES.changelog][0] == 2


async def test_a_record_that_is_no_state_may_be_anything() -> None:
    logs = erased(encrypt=False)
    logs.add(NAMES.changelog, b"anna@example.org")
    assert readable(await search(logs))[NAMES.changelog][0] == 2


async def test_a_key_of_a_user_who_was_not_erased_never_expires() -> None:
    logs = erased(encrypt=True)
    logs.cut(NAMES.keys, 1)
    found = readable(await search(logs))
    assert found[NAMES.keys] == (1, NEVER)
    assert found[NAMES.events] == (1, NEVER)


@pytest.mark.parametrize("unlimited", [-1, 2**63 - 1])
async def test_unlimited_settings_are_never(unlimited: int) -> None:
    logs = erased(encrypt=True)
    configs = {
        **CONFIGS,
        NAMES.keys: {"segment.ms": 10 * MINUTE, "max.compaction.lag.ms": unlimited},
    }
    assert readable(await search(logs, configs))[NAMES.events] == (1, NEVER)


@pytest.mark.parametrize("topic", [NAMES.commands, NAMES.dead_commands])
@pytest.mark.parametrize(
    ("value", "headers", "found"),
    [
        ({"type": "DeactivateUser", "aggregateId": USER, "expectedVersion": 1}, (), 0),
        ({"type": "RegisterUser", "aggregate_id": USER, "registration_source": "web"}, (), 0),
        (DROP, (), 0),
        ({**DROP, "first": "Anna"}, (), 1),
        ({**DROP, "name": "Anna"}, (), 1),
        ({"type": "RegisterUser", "aggregateId": USER, "first": "Anna"}, (), 1),
        ({"type": "DeactivateUser", "aggregateId": {"id": USER, "email": "a@b.c"}}, (), 1),
        ({"type": "DeactivateUser", "aggregateId": USER}, [("aggregateId", b"user-1")], 0),
        ({"type": "DeactivateUser", "aggregateId": USER}, [("cqrs-user", b"a@b.c")], 1),
        ({"type": "DeactivateUser", "aggregateId": USER}, [("traceparent", b"00-1-2-00")], 0),
        ({"type": "DeactivateUser", "aggregateId": USER}, [("cqrs-control", b"x")], 0),
        ({"type": "DeactivateUser", "aggregateId": USER}, [("user", b"anna@example.org")], 1),
        ({"type": "RegisterUser", "aggregateId": USER, "eMail": "anna@example.org"}, (), 1),
        ({"type": "RegisterUser", "aggregateId": USER, "first_name": "Anna"}, (), 1),
        ({"type": "RegisterUser", "user": {"email": "anna@example.org"}}, (), 1),
        ({"type": "Rename", "aggregateId": USER, "newEmail": "anna@example.org"}, (), 1),
    ],
)
async def test_what_a_producer_wrote_is_personal_unless_it_is_known_to_be_none(
    topic: str, value: object, headers: Headers, found: int
) -> None:
    """Records with other names are those that become dead letters."""
    logs = Logs()
    logs.add(topic, orjson.dumps(value), headers=headers)
    report = await search(logs)
    assert [one.readable for one in report.findings if one.records] == [found]


async def test_a_dead_letters_own_headers_are_not_the_records() -> None:
    logs = Logs()
    poison = Poison("unknown-type", "No handler registered")
    source = line(
        NAMES.commands, 0, b'{"type": "Rename"}', USER.encode(), (), PARTITION, WRITTEN_MS
    )
    logs.add(
        NAMES.dead_commands, b'{"type": "Rename"}', headers=dead_letter(source, poison).headers
    )
    assert readable(await search(logs)) == {}


async def test_an_event_of_another_program_may_be_anything() -> None:
    logs = Logs()
    logs.add(NAMES.events, b'{"type": "UserRenamed", "aggregateId": "user-1", "name": "Anna"}')
    assert readable(await search(logs)) == {NAMES.events: (1, NEVER)}


async def test_records_under_other_keys_are_found_by_the_id_in_them() -> None:
    logs = Logs()
    for key in ("someone", "else", "another"):
        logs.add(NAMES.dead_commands, b'{"aggregateId":"user-1","email":"a@b.c"}', key)
        logs.add(NAMES.dead_commands, b'{"aggregateId":"user-11","email":"a@b.c"}', key)
    assert readable(await search(logs)) == {NAMES.dead_commands: (3, after(DAY, 14 * DAY))}


async def test_the_id_is_found_also_if_a_producer_escapes_it() -> None:
    logs = Logs()
    logs.add(NAMES.commands, b'{"aggregateId": "\\u0075ser-1", "email": "a@b.c"}', "someone")
    assert readable(await search(logs)) == {NAMES.commands: (1, after(DAY, 7 * DAY))}


async def test_records_that_cannot_be_read_may_be_anybodys() -> None:
    """On a topic with retention they are gone by then; on others nobody can say that they are."""
    logs = Logs()
    for topic in (NAMES.commands, NAMES.events, NAMES.keys, NAMES.changelog):
        logs.add_unreadable(topic)
    report = await search(logs)
    verdicts = {one.name: one.verdict for one in report.findings if one.unseen}
    gone_by = verdicts.pop(NAMES.commands)
    assert gone_by.startswith("gone by ")
    assert verdicts == dict.fromkeys((NAMES.events, NAMES.keys, NAMES.changelog), "NOT looked at")
    assert not report.ok
    (commands,) = (one for one in report.findings if one.name == NAMES.commands)
    assert (commands.unseen, commands.expires_at) == (1, after(DAY, 7 * DAY))
    assert commands.note == "some records cannot be read: too large"


async def test_what_cannot_be_read_beside_what_can() -> None:
    logs = erased(encrypt=True)
    for topic in (NAMES.keys, NAMES.changelog, NAMES.dead_commands):
        logs.add_unreadable(topic)
    report = await search(logs)
    found = {one.name: (one.readable, one.unseen, one.verdict) for one in report.findings}
    assert found[NAMES.keys] == (1, 1, "NOT gone")
    assert found[NAMES.changelog] == (1, 1, "NOT gone")
    assert found[NAMES.dead_commands][:2] == (0, 1)


@pytest.mark.parametrize(
    ("sealed", "ended", "verdict"),
    [
        (True, True, KEY_COMPACTED),
        (False, True, after(HOUR, 6 * HOUR)),
        (True, False, KEY_COMPACTED),
        (False, False, NEVER),
    ],
)
async def test_parked_commands_are_searched(sealed: bool, ended: bool, verdict: Expiry) -> None:
    logs = Logs()
    keys = PartitionKeys(master_keys(SETTINGS))
    sealer = PartitionSealer(keys, encrypt=True)
    sealer.seal_event(record(ANNA))
    (key,) = sealer.changes()
    logs.add(NAMES.keys, key.value)
    logs.add(NAMES.keys, None)
    content = encode_content(Content(b'{"email": "anna@example.org"}', ()))
    if sealed:
        content = sealer.seal_parked(USER.encode(), 7, content)
    logs.add_parked(park(ParkedCommand(7, WRITTEN_MS, bytes(16), content), "decide-failed", ""))
    if ended:
        logs.add_parked(None)
    report = await search(logs)
    assert readable(report)[NAMES.changelog] == (1, verdict)
    note = next(one.note for one in report.findings if one.name == NAMES.changelog)
    assert ("cqrs dead list" in note) == (not ended)


async def test_a_parked_record_that_is_none_of_ours_may_be_anything() -> None:
    logs = Logs()
    logs.add_parked(None)
    log = logs._records[TopicPartition(NAMES.changelog, PARTITION)]
    log.append(
        line(NAMES.changelog, 1, b"\xff", parked_key(USER.encode()), (), PARTITION, WRITTEN_MS)
    )
    assert readable(await search(logs)) == {NAMES.changelog: (1, NEVER)}


async def test_a_key_that_a_former_master_key_wrapped_was_not_looked_at() -> None:
    logs = erased(encrypt=True)
    other = SETTINGS.model_copy(update={"master_key": SecretStr(new_master_key())})
    (keys, *_) = (await search(logs, settings=other)).findings
    assert (keys.readable, keys.unseen, keys.expires_at) == (0, 1, KEY_COMPACTED)
    assert "CQRS_SECOND_MASTER_KEY" in keys.note
    both = other.model_copy(update={"second_master_key": SETTINGS.master_key})
    (keys, *_) = (await search(logs, settings=both)).findings
    assert (keys.readable, keys.unseen, keys.expires_at) == (1, 0, KEY_COMPACTED)
    none = SETTINGS.model_copy(update={"master_key": None, "encrypt_personal_data": False})
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set"):
        await search(logs, settings=none)
