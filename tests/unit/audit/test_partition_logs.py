"""The logs of a partition in buckets: the report is the same, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP

from agents.user_views import USER_VIEWS
from agents.users import USERS
from models.errors import PartitionFatal, Poison
from models.events import UserDeactivated, UserErased
from models.wire import encode
from streams.audit import partition_logs
from streams.audit.folds import Frozen, Kept
from streams.audit.history import check_extra_documents
from streams.audit.partition import PartitionAudit
from streams.audit.partition_logs import PartitionLogs, Shelf, count_buckets
from streams.audit.report import Report
from streams.audit.view_records import ViewRecords
from streams.encryption.cipher import new_key
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.log_reader import LogReader
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record
from streams.state.store import Position, encode_position, position_key
from tests.unit.audit.histories import NAMES, NUMBER, History, dead_letter, line
from tests.unit.audit.tampering import (
    a_command_has_no_outcome,
    a_command_has_two_outcomes,
    a_dead_letter_is_missing,
    an_event_is_missing,
)
from tests.unit.samples import ANNA

PARTITIONS = 4
USERS_HERE = [
    name
    for name in (f"user-{number}" for number in range(80))
    if partition_of(name.encode(), PARTITIONS) == NUMBER
]


class Logs:
    """The topics of one partition, each with the records that are left from an offset on."""

    def __init__(self, topics: Mapping[str, list[Record]]) -> None:
        self.topics = {name: list(records) for name, records in topics.items()}
        self.reads: list[str] = []
        self.meanwhile: Callable[[str], None] = lambda _: None

    async def begin_offsets(self, partitions: Sequence[TopicPartition]) -> dict[Any, int]:
        return {
            tp: next((one.offset for one in self.topics.get(tp.topic, ())), 0) for tp in partitions
        }

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[Any, int]:
        return {tp: self._end(tp.topic) for tp in partitions}

    async def stable_end(self, partition: TopicPartition) -> int:
        return self._end(partition.topic)

    async def read(
        self, partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Record]]:
        assert partition.partition == NUMBER
        self.reads.append(partition.topic)
        found = [one for one in self.topics.get(partition.topic, ()) if start <= one.offset < end]
        self.meanwhile(partition.topic)
        for at in range(0, len(found), 3):
            yield found[at : at + 3]

    def _end(self, topic: str) -> int:
        records = self.topics.get(topic, ())
        return records[-1].offset + 1 if records else 0


def logs_of(history: History) -> Logs:
    """Return the topics that a worker would have written, keys included."""
    keys = {
        outcome.source.offset: (outcome.aggregate_id or f"bad-{at}").encode()
        for at, outcome in enumerate(history.outcomes)
    }
    stored = Position(history.position)
    state = [
        line(NAMES.changelog, at, history._stored(user, entity), user.encode())
        for at, (user, entity) in enumerate(history.users.items())
    ]
    reserved = position_key(TP(NAMES.commands, NUMBER))
    state.append(line(NAMES.changelog, len(state), encode_position(stored), reserved))
    return Logs(
        {
            NAMES.commands: [
                line(NAMES.commands, one.offset, None, keys.get(one.offset, b"lost"))
                for one in history.commands
            ],
            NAMES.outcomes: [
                line(NAMES.outcomes, at, encode(one), keys[one.source.offset])
                for at, one in enumerate(history.outcomes)
            ],
            NAMES.dead_commands: [
                replace_at(dead_letter(source), at, keys[source])
                for at, source in enumerate(history.dead_letters)
            ],
            NAMES.changelog: state,
            NAMES.events: [
                line(
                    *(NAMES.events, at, history.sealing.seal_event(event)),
                    event.aggregate_id.encode(),
                )
                for at, event in enumerate(history.events)
            ],
            NAMES.keys: [
                line(NAMES.keys, at, change.value, change.key)
                for at, change in enumerate(history.sealing.changes())
            ],
        }
    )


def replace_at(record: Record, offset: int, key: bytes) -> Record:
    return line(record.topic, offset, record.value, key, record.headers)


async def check(
    history: History, buckets: int, logs: Logs | None = None, master: MasterKeys | None = None
) -> Report:
    """Check a history as `verify` does."""
    report = Report()
    view_end = len(history.events) if history.view_end is None else history.view_end
    with (
        ViewRecords(USER_VIEWS, PARTITIONS, buckets) as view,
        open_partition(logs or logs_of(history), buckets, master) as read,
    ):
        for document in history.documents.values():
            view.add_document(document)
        for key in history.view_dead_letters:
            view.add_dead_letter(NUMBER, key.encode())
        frozen, kept = await read.read(lambda _: None, view_end=view_end)
        for bucket in read.buckets:
            documents = view.documents(NUMBER, bucket)
            audit = PartitionAudit(
                *(USERS, NAMES, NUMBER, frozen),
                view=documents,
                report=report,
                keys=read.keys(bucket),
            )
            audit.add_commands(read.records(Shelf.COMMANDS, bucket))
            audit.add_outcomes(read.records(Shelf.OUTCOMES, bucket))
            audit.add_dead_letters(read.records(Shelf.DEAD_LETTERS, bucket))
            audit.add_events(read.records(Shelf.EVENTS, bucket))
            audit.conclude(read.states(bucket), kept)
            check_extra_documents(documents, report)
    return report


def open_partition(logs: Logs, buckets: int, master: MasterKeys | None = None) -> PartitionLogs:
    return PartitionLogs(
        cast(LogReader, logs),
        NAMES,
        NUMBER,
        buckets=buckets,
        master=master,
        advance=lambda _: None,
    )


def long_history() -> History:
    """Return the history of some twenty users of this partition, with each kind of outcome."""
    history = History()
    for user in USERS_HERE:
        history.accept(user, ANNA)
        history.reject(user)
        history.dead_letter()
    for user in USERS_HERE[::2]:
        history.accept(user, UserDeactivated())
    return history


def sound(_history: History) -> None:
    """Leave it as it is."""


@pytest.mark.parametrize(
    "tamper",
    [
        sound,
        a_command_has_no_outcome,
        a_command_has_two_outcomes,
        an_event_is_missing,
        a_dead_letter_is_missing,
    ],
)
async def test_the_number_of_buckets_changes_nothing(tamper: Callable[[History], None]) -> None:
    history = long_history()
    tamper(history)
    whole = await check(history, 1)
    assert whole.ok == (tamper is sound)
    for buckets in (2, 7):
        parts = await check(history, buckets)
        assert counts_of(parts) == counts_of(whole)
        assert parts.documents == whole.documents


def counts_of(report: Report) -> dict[str, Any]:
    """Return what the report says, but for which violation it names first."""
    found = asdict(report)
    for finding in found["findings"].values():
        finding["first"] = finding["first"] is None
    return found


async def test_documents_and_states_of_every_bucket_are_compared() -> None:
    history = long_history()
    first, second, *_ = USERS_HERE
    history.documents[first]["lastName"] = "Other"
    del history.users[second]
    report = await check(history, 5)
    assert (report.findings["I3"].lost, report.findings["I4"].violations) == (1, 1)
    assert report.findings["I4"].checked == len(USERS_HERE)
    assert report.findings["I3"].checked == len(USERS_HERE)


async def test_dead_letters_of_every_bucket_explain_what_cannot_exist() -> None:
    history = History()
    ids = [name_here("i" * 513), name_here("j" * 600)]
    for user in ids:
        history.accept(user, ANNA)
    history.documents.clear()
    history.view_dead_letters = {*ids}
    report = await check(history, 5)
    assert report.first_violation is None
    assert report.known_missing == 2


async def test_a_dead_letter_with_any_key_is_no_error() -> None:
    """Whoever may write to the event topic chooses the key of its dead letter."""
    with ViewRecords(USER_VIEWS, PARTITIONS, 1) as view:
        view.add_dead_letter(NUMBER, b"\xff")
        assert not view.documents(NUMBER, 0).has_dead_letter("anna")


async def test_a_document_without_events_is_found_in_its_bucket() -> None:
    history = long_history()
    history.documents["extra"] = {"id": name_here("extra"), "version": 1}
    report = await check(history, 5)
    assert report.findings["I4"].first == f"the document {name_here('extra')} has no events"


async def test_a_document_that_somebody_else_wrote_is_an_extra_one() -> None:
    history = long_history()
    user, *_ = USERS_HERE
    version = history.documents[user]["version"]
    history.documents[user] = {"id": user}  # all that is read of such a one
    history.documents["extra"] = {"id": name_here("extra")}
    report = await check(history, 5)
    found = report.findings["I4"]
    assert found.first == f"{user} has {version} events and no document"
    assert (found.lost, found.violations) == (1, 3)


def name_here(prefix: str) -> str:
    """Return an id of this partition."""
    return next(
        name
        for name in (f"{prefix}-{number}" for number in range(99))
        if partition_of(name.encode(), PARTITIONS) == NUMBER
    )


async def test_a_state_that_was_replaced_or_removed_does_not_count() -> None:
    history = long_history()
    logs = logs_of(history)
    first, *rest = logs.topics[NAMES.changelog]
    older = line(NAMES.changelog, 0, b"older", first.key)
    removed = [line(NAMES.changelog, 1, b"gone", b"bad"), line(NAMES.changelog, 2, None, b"bad")]
    again = [*removed, first, *rest]
    logs.topics[NAMES.changelog] = [
        older,
        *(line(NAMES.changelog, at, one.value, one.key) for at, one in enumerate(again, 1)),
    ]
    report = await check(history, 3, logs)
    assert report.first_violation is None
    assert report.findings["I3"].checked == len(USERS_HERE)


async def test_what_cannot_be_read_on_the_changelog_is_no_state() -> None:
    history = long_history()
    logs = logs_of(history)
    states = logs.topics[NAMES.changelog]
    foreign = Record(
        NAMES.changelog, NUMBER, len(states), 0, None, None, (), Poison("unreadable", "a header")
    )
    logs.topics[NAMES.changelog] = [*states, foreign]
    report = await check(history, 3, logs)
    assert report.first_violation is None
    assert report.findings["I3"].checked == len(USERS_HERE)


async def test_what_retention_has_left_is_told_by_the_first_that_is_left() -> None:
    """Of outcomes and dead letters there are offsets of their own, and those of their commands."""
    history = long_history()
    logs = logs_of(history)
    for topic, count in ((NAMES.commands, 4), (NAMES.outcomes, 8), (NAMES.dead_commands, 3)):
        del logs.topics[topic][:count]
    with open_partition(logs, 2) as read:
        frozen, kept = await read.read(lambda _: None)
    assert frozen == Frozen(history.position, 0)
    assert kept == Kept(4, history.outcomes[8].source.offset, history.dead_letters[3])
    assert (await check(history, 3, logs)).first_violation is None


async def test_if_nothing_is_left_everything_below_the_position_has_expired() -> None:
    history = long_history()
    logs = logs_of(history)
    reached = history.position
    foreign = line(NAMES.outcomes, 90, b"no outcome")
    logs.topics |= {NAMES.outcomes: [foreign], NAMES.dead_commands: [line("", 7)]}
    with open_partition(logs, 1) as read:
        _, kept = await read.read(lambda _: None)
    assert kept == Kept(0, reached, reached)


async def test_each_record_counts_when_it_is_read_and_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_logs, "_ADVANCE_RECORDS", 3)
    history = long_history()
    logs = logs_of(history)
    _, total = await count_buckets(
        cast(LogReader, logs), [name for name in logs.topics if name != NAMES.keys], [NUMBER]
    )
    told: list[int] = []
    with PartitionLogs(
        cast(LogReader, logs),
        NAMES,
        NUMBER,
        buckets=2,
        master=MasterKeys(new_key()),
        advance=told.append,
    ) as read:
        await read.read(lambda _: None)
        assert sum(told) == total
        for bucket in read.buckets:
            read.keys(bucket)
            read.states(bucket)
            for shelf in (*Shelf,)[Shelf.COMMANDS :]:
                list(read.records(shelf, bucket))
    assert sum(told) == 2 * total


async def test_the_position_is_checked_before_the_rest_is_read() -> None:
    logs = logs_of(long_history())

    def refuse(stored: Position | None) -> None:
        assert stored is not None
        raise PartitionFatal(f"position {stored.offset}")

    with open_partition(logs, 1) as read, pytest.raises(PartitionFatal, match="position"):
        await read.read(refuse)
    assert logs.reads == [NAMES.changelog]


async def test_states_alone_need_states_and_events() -> None:
    logs = logs_of(long_history())
    with open_partition(logs, 1) as read:
        await read.read(lambda _: None, all_topics=False)
    assert logs.reads == [NAMES.changelog, NAMES.events]


async def test_a_record_without_a_key_on_the_changelog_is_told() -> None:
    logs = Logs({NAMES.changelog: [line(NAMES.changelog, 0, b"x")]})
    with open_partition(logs, 1) as read, pytest.raises(PartitionFatal, match="without a key"):
        await read.read(lambda _: None)


@pytest.mark.parametrize("buckets", [1, 4])
async def test_a_key_that_is_destroyed_while_this_reads_is_kept(buckets: int) -> None:
    """And one that comes with the events is found, for keys are read before and after them."""
    master = MasterKeys(new_key())
    sealing = PartitionSealer(PartitionKeys(master), encrypt=True)
    history = History(sealing=sealing)
    early, late = USERS_HERE[:2]
    history.accept(early, ANNA)
    logs = logs_of(history)
    history.accept(late, ANNA)
    complete = logs_of(history)

    def change(topic: str) -> None:
        """When the events are read: the second key comes, the first is destroyed."""
        if topic == NAMES.events:
            at = len(complete.topics[NAMES.keys])
            logs.topics[NAMES.keys] = [
                *complete.topics[NAMES.keys],
                line(NAMES.keys, at, None, early.encode()),
            ]

    logs.topics = {**complete.topics, NAMES.keys: logs.topics[NAMES.keys]}
    logs.meanwhile = change
    report = await check(history, buckets, logs, master)
    assert report.first_violation is None
    assert report.events == 2


async def test_a_key_that_was_destroyed_before_is_not_kept() -> None:
    """A view that has seen the events without it has tombstones of lower versions."""
    master = MasterKeys(new_key())
    history = History(sealing=PartitionSealer(PartitionKeys(master), encrypt=True))
    (user, *_) = USERS_HERE
    history.accept(user, ANNA)
    history.accept(user, UserErased())
    logs = logs_of(history)
    at = len(logs.topics[NAMES.keys])
    logs.topics[NAMES.keys].append(line(NAMES.keys, at, None, user.encode()))
    with open_partition(logs, 1, master) as read:
        await read.read(lambda _: None)
        keys = read.keys(0)
    assert keys is not None
    assert user.encode() not in keys


async def test_there_are_as_many_buckets_as_the_largest_partition_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_logs, "_BUCKET_RECORDS", 10)
    history = long_history()
    logs = cast(LogReader, logs_of(history))
    (buckets, records) = await count_buckets(logs, [NAMES.events, NAMES.outcomes], [NUMBER])
    assert records == len(history.outcomes) + len(history.events)
    assert buckets == -(-records // 10)
    assert await count_buckets(logs, [NAMES.events], []) == (1, 0)
