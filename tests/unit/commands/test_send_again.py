"""What could not be decided is read and sent again, each dead letter once; without servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import orjson
import pytest
from aiokafka.structs import TopicPartition
from pydantic import SecretStr

from agents.users import COMMAND_WORKER
from models.errors import Fatal
from streams.commands import failed
from streams.commands import partition as command_partition
from streams.commands import send_again as sending
from streams.commands.failed import DeadCommand, FailedCommands, read_failed
from streams.commands.send_again import SENT_BY_DEFAULT, can_be_sent, newest, send_again
from streams.encryption.key_ring import KeyRing
from streams.encryption.keys import PartitionKeys, master_keys, new_master_key
from streams.kafka.log_reader import LogReader
from streams.kafka.records import Record
from streams.kafka.transactions import Fenced, OutputRecord
from streams.state.parked import PARKED_PREFIX
from tests.unit.commands.deciding import NAMES, Deciding, Written
from tests.unit.commands.parked_commands import drop, in_order, register, send, update


class Logs:
    """The topics of a `Deciding`."""

    def __init__(self, deciding: Deciding) -> None:
        self._deciding = deciding

    async def end_offsets(self, wanted: Collection[TopicPartition]) -> Mapping[Any, int]:
        return {one: len(self._deciding.topics[one.topic]) for one in wanted}

    async def stable_end(self, one: TopicPartition) -> int:
        return len(self._deciding.topics[one.topic])

    async def read(
        self, one: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Record]]:
        found = self._deciding._records(one.topic)[start:end]
        if found:
            yield found


class Ring:
    """The keys of a `Deciding`."""

    def __init__(self, deciding: Deciding) -> None:
        self._deciding = deciding

    async def ensure_loaded(self, *_: object) -> None:
        """They are."""

    def of(self, _: int) -> PartitionKeys:
        keys = PartitionKeys(master_keys(self._deciding.settings))
        for one in self._deciding.topics[NAMES.keys]:
            keys.apply(one.key or b"", one.value)
        return keys


class Resends(Written):
    """A producer of commands: they get to the log of the `Deciding`."""

    deciding: Deciding
    fenced = False

    async def commit(
        self, outputs: Mapping[str, Sequence[OutputRecord]], **_checks: object
    ) -> Mapping[str, int]:
        if self.fenced:
            raise Fenced
        for one in outputs[NAMES.commands]:
            self.deciding.send(one.key or b"", one.value or b"", *one.headers)
        self.deciding.topics[NAMES.dead_commands] += outputs[NAMES.dead_commands]
        return {}


Connect = Callable[[Deciding], None]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Lets what reads and sends use a `Deciding` in the place of Kafka."""
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)

    def to(deciding: Deciding) -> None:
        @asynccontextmanager
        async def logs(*_: object) -> AsyncIterator[LogReader]:
            yield cast("LogReader", Logs(deciding))

        @asynccontextmanager
        async def ring(*_: object) -> AsyncIterator[KeyRing | None]:
            has_key = deciding.settings.master_key is not None
            yield cast("KeyRing", Ring(deciding)) if has_key else None

        for module in (failed, sending):
            monkeypatch.setattr(module, "open_logs", logs)
            monkeypatch.setattr(module, "open_key_ring", ring)
        monkeypatch.setattr(Resends, "deciding", deciding, raising=False)
        monkeypatch.setattr(sending, "TransactionalProducer", Resends)

    return to


def find(deciding: Deciding) -> FailedCommands:
    return asyncio.run(read_failed(deciding.settings, NAMES))


def by_default(letter: DeadCommand) -> bool:
    return letter.code in SENT_BY_DEFAULT


def replay(
    deciding: Deciding,
    wanted: Callable[[DeadCommand], bool] = by_default,
    rate: float | None = None,
) -> int:
    """Send again what is wanted; return how many that were."""

    async def run() -> int:
        batches = send_again(deciding.settings, NAMES, COMMAND_WORKER, 0, wanted, rate)
        return sum([len(batch) async for batch in batches])

    return asyncio.run(run())


def test_a_dead_letter_is_sent_once_and_keeps_its_id(connect: Connect) -> None:
    deciding = in_order(dead_letter_order="skip")
    connect(deciding)
    register(deciding)
    id_ = str(uuid4())
    first = update(deciding, "Bea", id=id_, timestamp="2026-11-23T12:00:00Z")
    value = {"type": "UpdateUserProfile", "aggregateId": "u", "firstName": "Cid"}
    without_id = deciding.send(b"u", value, ("trace", b"1"))
    deciding.send(b"u", b"no JSON")
    deciding.decide()
    ids = [str(one.command_id) for one in find(deciding).dead]
    assert [one.source.offset for one in find(deciding).dead[:2]] == [first, without_id]
    deciding.breaks = lambda _: False
    assert replay(deciding, rate=1000.0) == 2
    assert replay(deciding) == 0
    deciding.decide()
    assert [one["status"] for one in deciding.outcomes()[-2:]] == ["accepted", "accepted"]
    assert [one["commandId"] for one in deciding.outcomes()[-2:]] == ids[:2]
    assert deciding.log[-2].value == deciding.log[first].value
    assert deciding.log[-1].headers == (("trace", b"1"),)
    assert deciding.audit().first_violation is None
    assert [one.sent_again for one in find(deciding).dead] == [True, True, False]


def test_one_that_fails_again_can_be_sent_again(connect: Connect) -> None:
    deciding = in_order(dead_letter_order="skip")
    connect(deciding)
    register(deciding)
    update(deciding, "Bea")
    deciding.decide()
    assert replay(deciding) == 1
    deciding.decide()
    assert len(find(deciding).dead) == 2
    assert len(newest(find(deciding).dead)) == 1
    deciding.breaks = lambda _: False
    assert replay(deciding) == 1
    deciding.decide()
    assert deciding.outcomes()[-1]["status"] == "accepted"
    assert replay(deciding) == 0


def test_what_its_producer_has_repeated_is_not_sent(connect: Connect) -> None:
    deciding = in_order(dead_letter_order="skip")
    connect(deciding)
    register(deciding)
    id_ = str(uuid4())
    update(deciding, "Bea", id=id_)
    deciding.decide()
    deciding.breaks = lambda _: False
    update(deciding, "Bea", id=id_)
    deciding.decide()
    deciding.topics[NAMES.outcomes].append(OutputRecord(b"u", b"of another program"))
    assert replay(deciding) == 0


def test_the_answer_to_another_users_command_with_the_same_id_does_not_count(
    connect: Connect,
) -> None:
    deciding = in_order(dead_letter_order="skip")
    connect(deciding)
    register(deciding, "u")
    register(deciding, "v")
    id_ = str(uuid4())
    update(deciding, "Bea", "u", id=id_)
    update(deciding, "Bea", "v", id=id_)
    deciding.decide()
    deciding.breaks = lambda _: False
    update(deciding, "Bea", "v", id=id_)
    deciding.decide()
    assert replay(deciding) == 1
    assert deciding.log[-1].key == b"u"


def test_a_sealed_letter_is_sent_if_its_key_is_there(connect: Connect) -> None:
    master = SecretStr(new_master_key())
    deciding = in_order(dead_letter_order="skip", encrypt_personal_data=True, master_key=master)
    connect(deciding)
    register(deciding)
    update(deciding, "Bea")
    deciding.decide()
    deciding.breaks = lambda _: False
    keys = deciding.topics.pop(NAMES.keys)
    (letter,) = find(deciding).dead
    assert letter.value is None
    assert not can_be_sent(letter)
    assert replay(deciding) == 0
    deciding.topics[NAMES.keys] = keys
    assert replay(deciding) == 1
    deciding.decide()
    assert deciding.outcomes()[-1]["status"] == "accepted"


def send_one_by_one(deciding: Deciding, between: Callable[[], object]) -> int:
    """Send again what is wanted, with something else after the first batch; return how many."""

    async def run() -> int:
        sent = 0
        async for batch in send_again(deciding.settings, NAMES, COMMAND_WORKER, 0, by_default, 1.9):
            sent += len(batch)
            if sent == 1:
                between()
                await asyncio.to_thread(deciding.decide)
        return sent

    return asyncio.run(run())


@pytest.mark.parametrize("what", ["answered", "erased"])
def test_what_is_answered_or_erased_while_others_are_sent_is_not_sent(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def at_once(_: float) -> None:
        """The pause between two batches is over."""

    master = SecretStr(new_master_key())
    deciding = in_order(dead_letter_order="skip", encrypt_personal_data=True, master_key=master)
    connect(deciding)
    ids = [str(uuid4()) for _ in range(3)]
    for user, id_ in zip("uvw", ids, strict=True):
        register(deciding, user)
        update(deciding, "Bea", user, id=id_)
    deciding.decide()
    deciding.breaks = lambda _: False
    monkeypatch.setattr(asyncio, "sleep", at_once)

    def meanwhile() -> None:
        if what == "answered":
            update(deciding, "Bea", "v", id=ids[1])
        else:
            send(deciding, "EraseUser", "v")

    assert send_one_by_one(deciding, meanwhile) == 2
    again = [one.key for one in deciding.log[6:] if b"Bea" in (one.value or b"")]
    assert again == ([b"u", b"v", b"w"] if what == "answered" else [b"u", b"w"])


def test_what_is_parked_is_read_with_its_content(connect: Connect) -> None:
    deciding = in_order(encrypt_personal_data=True, master_key=SecretStr(new_master_key()))
    connect(deciding)
    register(deciding)
    failing = update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    deciding.decide()
    (one,) = find(deciding).parked
    assert (one.aggregate_id, one.parked.first.offset) == ("u", failing)
    contents = [orjson.loads(content.value) for content in one.contents if content]
    assert [content["type"] for content in contents] == ["UpdateUserProfile", "DeactivateUser"]
    keys = deciding.topics.pop(NAMES.keys)
    assert find(deciding).parked[0].contents == [None, None]
    deciding.topics[NAMES.keys] = keys
    drop(deciding, failing, 99)
    deciding.decide()
    assert not find(deciding).parked
    assert [letter.code for letter in find(deciding).dead] == ["dropped", "dropped"]
    assert any(key.startswith(PARKED_PREFIX) for key in map(_key, deciding.topics[NAMES.changelog]))
    deciding.breaks = lambda _: False
    assert replay(deciding) == 0
    assert replay(deciding, lambda letter: letter.code == "dropped") == 2
    deciding.decide()
    assert [one["status"] for one in deciding.outcomes()[-2:]] == ["accepted", "accepted"]


def test_of_two_at_the_same_time_one_ends(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    deciding = in_order(dead_letter_order="skip")
    connect(deciding)
    register(deciding)
    update(deciding, "Bea")
    deciding.decide()
    monkeypatch.setattr(Resends, "fenced", True)
    with pytest.raises(Fatal, match=r"another `cqrs dead replay`"):
        replay(deciding)


def test_records_of_others_are_left_out(connect: Connect) -> None:
    deciding = in_order()
    connect(deciding)
    deciding.topics[NAMES.dead_commands] += [
        OutputRecord(b"u", b"of another program"),
        OutputRecord(b"u", None, [("cqrs-sent-again", b"no number")]),
    ]
    assert find(deciding) == FailedCommands([], [])


def _key(record: OutputRecord) -> bytes:
    return record.key or b""
