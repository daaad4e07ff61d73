"""The state of an aggregate at any version and time of its timeline."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from agents.users import USERS
from models.events import (
    USER_EVENTS,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
)
from models.messages import EventRecord, Source, parse_event
from models.outcomes import parse_outcome
from models.wire import encode
from streams.audit import timeline
from streams.audit.timeline import Entry, Timeline, entries_of, read_timeline, state_of
from streams.commands import partition as command_partition
from streams.kafka.log_reader import LogReader
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord
from streams.state.snapshot import NO_SNAPSHOT
from streams.state.store import decode_position, encode_position, position_key
from tests.unit.commands.deciding import NAMES, TOPIC, Deciding, Written
from tests.unit.commands.parked_commands import in_order, register, replay, send, update
from tests.unit.samples import ANNA

NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


def entry(offset: int, minutes: int, event: UserEvent) -> Entry:
    record = EventRecord(
        id=UUID(int=offset),
        aggregate_id="anna",
        sequence=offset + 1,
        timestamp=NOON + timedelta(minutes=minutes),
        command_id=UUID(int=offset),
        correlation_id=None,
        causation_id=None,
        source=Source("users.commands.v1", 0, offset),
        event=event,
    )
    return Entry(offset, None, None, (record,))


TIMELINE = Timeline(
    "anna",
    0,
    (
        entry(0, 0, ANNA),
        entry(1, 10, UserProfileUpdated(first_name="Anja")),
        entry(2, 5, UserDeactivated()),  # a producer whose clock is behind
        entry(3, 20, UserReactivated()),
    ),
    (),
    4,
)


def test_without_a_limit_it_is_the_fold_of_all_events() -> None:
    found = state_of(USERS, TIMELINE)
    assert found.state is not None
    assert (found.version, found.state.first_name, found.state.is_active) == (4, "Anja", True)


def test_at_a_version() -> None:
    found = state_of(USERS, TIMELINE, version=1)
    assert found.state is not None
    assert (found.version, found.state.first_name) == (1, ANNA.first_name)


def test_at_a_time_it_has_all_events_before_the_last_one_of_that_time() -> None:
    found = state_of(USERS, TIMELINE, time=NOON + timedelta(minutes=7))
    assert found.state is not None
    assert (found.version, found.state.first_name, found.state.is_active) == (3, "Anja", False)


def test_before_its_first_event_there_is_none() -> None:
    assert state_of(USERS, TIMELINE, time=NOON - timedelta(minutes=1)) == NO_SNAPSHOT


def test_an_entry_has_the_time_of_what_is_left_of_it() -> None:
    assert TIMELINE.entries[1].time == NOON + timedelta(minutes=10)


def test_a_command_that_was_parked_has_the_events_of_its_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)
    deciding = in_order()
    register(deciding)
    update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    send(deciding, "DeactivateUser")
    deciding.decide()
    deciding.breaks = lambda _: False
    replay(deciding, 1)
    update(deciding, "Cid")
    deciding.breaks = lambda command: getattr(command, "first_name", None) == "Cid"
    deciding.decide()
    decided, happened = defaultdict(list), defaultdict(list)
    for one in deciding.outcomes():
        outcome = parse_outcome(encode(one))
        decided[outcome.source.offset].append(outcome)
    for one in deciding.events():
        event = parse_event(one, USER_EVENTS)
        happened[event.source.offset].append(event)
    entries = entries_of({}, decided, happened)
    said = [
        (one.offset, one.outcome and one.outcome.status, [event.sequence for event in one.events])
        for one in entries
    ]
    assert said == [
        (0, "accepted", [1]),
        (1, "accepted", [2]),
        (2, "accepted", [3]),
        (3, "rejected", []),
        (4, "unparked", []),
        (5, "parked", []),
    ]


class Logs:
    """The topics of a `Deciding`."""

    def __init__(self, deciding: Deciding) -> None:
        self._deciding = deciding

    async def end_offsets(self, wanted: Collection[TopicPartition]) -> Mapping[Any, int]:
        return {one: len(self._of(one)) for one in wanted}

    async def read(
        self, one: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Record]]:
        yield self._of(one)[start:end]

    async def last_record(
        self, one: TopicPartition, end: int, wanted: Callable[[Record], bool]
    ) -> Record | None:
        return next(filter(wanted, reversed(self._of(one)[:end])), None)

    def _of(self, one: TopicPartition) -> list[Record]:
        is_log = one.topic == NAMES.commands
        return self._deciding.log if is_log else self._deciding._records(one.topic)


def adopt(deciding: Deciding) -> None:
    """Delete the command topic, create it again, and adopt it."""
    key = position_key(TOPIC)
    changelog = deciding.topics[NAMES.changelog]
    former = next(one for one in reversed(changelog) if one.key == key)
    adopted = replace(
        decode_position(former.value or b""),
        offset=0,
        events_from=len(deciding.topics[NAMES.events]),
        outcomes_from=len(deciding.topics[NAMES.outcomes]),
    )
    changelog.append(OutputRecord(key, encode_position(adopted)))
    deciding.log.clear()


def test_what_a_former_command_topic_caused_comes_first_and_is_of_no_present_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)
    deciding = Deciding()
    register(deciding)
    send(deciding, "DeactivateUser")
    send(deciding, "DeactivateUser")
    deciding.decide()
    adopt(deciding)
    send(deciding, "DeactivateUser")
    send(deciding, "ReactivateUser")
    deciding.decide()

    @asynccontextmanager
    async def logs(*_: object) -> AsyncIterator[LogReader]:
        yield cast("LogReader", Logs(deciding))

    async def check_topics(*_: object) -> None:
        """They are as they have to be."""

    monkeypatch.setattr(timeline, "open_logs", logs)
    monkeypatch.setattr(timeline, "check_topics", check_topics)
    found = asyncio.run(read_timeline(deciding.settings, USERS, "u"))
    said = [
        (
            one.offset,
            one.command and one.command.type,
            one.outcome and one.outcome.status,
            [event.sequence for event in one.events],
        )
        for one in found.entries
    ]
    assert said == [
        (0, None, "accepted", [1]),
        (1, None, "accepted", [2]),
        (2, None, "rejected", []),
        (0, "DeactivateUser", "rejected", []),
        (1, "ReactivateUser", "accepted", [3]),
    ]
