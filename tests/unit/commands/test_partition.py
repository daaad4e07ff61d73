"""What comes of the commands of a partition, however they are cut into chunks and groups."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs
from pydantic import SecretStr

from agents.user_commands import user_command_bus
from agents.users import USERS
from deploy.samples.commands import malformed, plan
from models.commands import RegisterUser
from models.errors import Fatal, Transient
from models.messages import Command, Event
from models.user import User
from streams import tracing
from streams.buses import CommandBus
from streams.commands import partition as command_partition
from streams.commands.partition import CommandPartition
from streams.encryption.cipher import is_sealed_state
from streams.encryption.keys import new_master_key
from streams.kafka.dead_letters import SEALED, WITHHELD
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord
from streams.settings import Settings
from streams.state.recovery import Recovered
from streams.state.store import MemoryStore, Position
from tests.unit.commands.deciding import NAMES, TOPIC, Deciding, Written
from tests.unit.samples import wire_register

MORE_THAN_A_GROUP = 3 * command_partition._GROUP_SIZE


@pytest.fixture(autouse=True)
def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of a transaction is shown by the tests with a real Kafka."""

    async def from_nothing(*_: object) -> Recovered:
        return Recovered(MemoryStore(), Position(0), {})

    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)
    monkeypatch.setattr(command_partition, "recover_partition", from_nothing)


def written(
    chunks: Iterable[Sequence[Record]],
    new_bus: Callable[[Any], CommandBus[Sequence[Event]]] = user_command_bus,
    **changes: Any,
) -> dict[str, list[OutputRecord]]:
    """What is on each topic when these chunks were processed."""

    async def process() -> dict[str, list[OutputRecord]]:
        settings = Settings(**{"partitions": 1, **changes})
        app = SimpleNamespace(settings=settings, cluster="cluster", conf=SimpleNamespace(id="app"))
        table = SimpleNamespace(owned={}, changelog=NAMES.changelog)
        partition = CommandPartition[User](
            cast("Any", app), USERS, cast("Any", table), new_bus, TOPIC
        )
        await partition.start()
        for chunk in chunks:
            await partition.process(chunk, chunk[-1].offset + 1)
        return cast("Any", partition._producer).topics  # type: ignore[no-any-return]

    return asyncio.run(process())


def record(offset: int, key: bytes, value: bytes) -> Record:
    time = 1_790_000_000_000 + offset // 3
    return Record(*TOPIC, offset, time, key, value)


def command(offset: int, type_: str) -> Record:
    return record(offset, b"u", orjson.dumps({"type": type_, "aggregateId": "u"}))


def register(offset: int) -> Record:
    return record(offset, b"u", orjson.dumps(wire_register(aggregateId="u", id=None)))


def mixed(seed: int) -> list[Record]:
    """Commands of all kinds with no commands among them, more than are decided at a time."""
    bad = malformed(MORE_THAN_A_GROUP // 10, seed + 1)
    records = []
    for offset, (wire, _) in enumerate(plan(MORE_THAN_A_GROUP, seed, duplicates=0.1)):
        if offset % 10 == 9:
            key, value = next(bad)
            records.append(record(offset, key, value))
        else:
            records.append(record(offset, wire["aggregateId"].encode(), orjson.dumps(wire)))
    return records


CONTEXT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-00000000000000a1-01")


@pytest.mark.parametrize("traced", [True, False])
def test_with_tracing_the_context_of_a_command_travels_with_what_it_causes(
    traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "is_enabled", lambda: traced)
    came = [
        structs.replace(register(1), headers=(("other", b"x"), CONTEXT, ("tracestate", b"a=b")))
    ]
    after = [structs.replace(command(2, "DeactivateUser"), headers=(CONTEXT,)), register(3)]
    topics = written([[command(0, "DeactivateUser"), *came, *after]])
    expected: list[Sequence[Any]] = [(), [CONTEXT], [CONTEXT], ()]
    if not traced:
        expected = [()] * 4
    assert [one.headers for one in topics[NAMES.outcomes]] == expected
    assert [one.headers for one in topics[NAMES.events]] == expected[1:3]


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.lists(st.integers(1, MORE_THAN_A_GROUP - 1)))
def test_the_outcomes_do_not_depend_on_the_chunks(seed: int, cuts: list[int]) -> None:
    records = mixed(seed)
    places = sorted({0, len(records), *cuts})
    chunks = [records[a:b] for a, b in pairwise(places)]
    one_by_one, cut = written([record] for record in records), written(chunks)
    for topic in (NAMES.events, NAMES.outcomes, NAMES.dead_commands):
        assert one_by_one[topic]
        assert cut[topic] == one_by_one[topic]
    assert _last(cut[NAMES.changelog]) == _last(one_by_one[NAMES.changelog])


def test_each_command_of_a_chunk_sees_the_changes_of_those_before() -> None:
    again = register(1)
    topics = written([[register(0), again, command(2, "DeactivateUser"), again]])
    outcomes = [orjson.loads(one.value or b"") for one in topics[NAMES.outcomes]]
    assert [one["status"] for one in outcomes] == ["accepted", "rejected", "accepted", "duplicate"]
    assert outcomes[3]["of"] == {"status": "rejected"} | {
        name: outcomes[1][name] for name in ("code", "reason")
    }


def test_events_of_one_command_id_have_ids_of_their_own() -> None:
    records = [
        record(offset, user.encode(), orjson.dumps(wire_register(aggregateId=user)))
        for offset, user in enumerate(["u", "v"])
    ]
    again = record(2, b"u", records[0].value or b"")
    topics = written([[*records, again]])
    ids = [orjson.loads(one.value or b"")["id"] for one in topics[NAMES.events]]
    assert len(ids) == len(set(ids)) == 2
    outcomes = [orjson.loads(one.value or b"") for one in topics[NAMES.outcomes]]
    assert [one["status"] for one in outcomes] == ["accepted", "accepted", "duplicate"]
    assert [one["eventIds"] for one in outcomes[:2]] == [[id_] for id_ in ids]
    assert outcomes[2]["of"]["eventIds"] == [ids[0]]


@pytest.mark.parametrize("error", [Transient("its disk is full"), Fatal("restore the events")])
def test_what_says_nothing_about_the_command_makes_no_dead_letter(error: Exception) -> None:
    """The worker tries the chunk again, or ends: the command is as good as it was."""

    async def fail(_: RegisterUser) -> Sequence[Event]:
        raise error

    def failing_bus(_: object) -> CommandBus[Sequence[Event]]:
        bus = CommandBus[Sequence[Event]]()
        bus.register(RegisterUser, fail)
        return bus

    with pytest.raises(type(error)):
        written([[register(0)]], failing_bus)


def test_a_dead_letter_is_sealed_if_the_user_is_erased_later_in_the_chunk() -> None:
    no_command = record(1, b"u", b'{"type": "RegisterUser", "aggregateId": "u", "email": 1}')
    erase = command(2, "EraseUser")
    late = record(3, b"u", no_command.value or b"")
    topics = written(
        [[register(0), no_command, erase, late]],
        encrypt_personal_data=True,
        master_key=SecretStr(new_master_key()),
    )
    before, after = topics[NAMES.dead_commands]
    assert SEALED in dict(before.headers)
    assert after.value is None
    assert WITHHELD in dict(after.headers)
    keys = [(one.key, one.value) for one in topics[NAMES.keys]]
    assert keys == [(b"u", None)]


def test_a_worker_that_does_not_encrypt_decides_nothing_where_others_do() -> None:
    key = SecretStr(new_master_key())
    deciding = Deciding(encrypt_personal_data=True, master_key=key)
    deciding.send(b"u", wire_register(aggregateId="u"))
    deciding.decide()
    deciding.settings = Settings(partitions=1, master_key=key)
    deciding.send(b"v", wire_register(aggregateId="v"))
    with pytest.raises(Fatal, match="set CQRS_ENCRYPT_PERSONAL_DATA=true$"):
        deciding.decide()
    assert len(deciding.events()) == 1


@pytest.mark.parametrize("size", [1, 64])
def test_states_are_sealed_unless_the_user_is_erased_later_in_the_chunk(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_partition, "_GROUP_SIZE", size)
    other = record(2, b"v", orjson.dumps(wire_register(aggregateId="v", id=None)))
    topics = written(
        [[register(0), command(1, "DeactivateUser"), other, command(3, "EraseUser")]],
        encrypt_personal_data=True,
        master_key=SecretStr(new_master_key()),
    )
    states = {
        one.key: is_sealed_state(one.value)
        for one in topics[NAMES.changelog]
        if one.key in (b"u", b"v")
    }
    assert states == {b"u": False, b"v": True}
    assert len(topics[NAMES.changelog]) == 3  # one of each user, and the position


@pytest.mark.parametrize("value", [b"{}", orjson.dumps(wire_register(aggregateId="u", id=None))])
def test_a_letter_in_another_partition_than_its_key_has_no_value(value: bytes) -> None:
    """The user may have a key there, and erasing her would not reach this letter."""
    user = next(
        user for user in map(b"u%d".__mod__, range(9)) if partition_of(user, 2) != TOPIC.partition
    )
    value = value.replace(b'"u"', b'"%b"' % user)
    topics = written(
        [[record(0, user, value)]],
        partitions=2,
        encrypt_personal_data=True,
        master_key=SecretStr(new_master_key()),
    )
    (letter,) = topics[NAMES.dead_commands]
    assert (letter.key, letter.value) == (user, None)
    assert dict(letter.headers)[WITHHELD] == b"%d" % len(value)


def test_nothing_of_a_chunk_is_left_to_the_garbage_collector() -> None:
    """A traceback has the frames that were at work, and they have all commands around it."""
    gc.collect()
    gc.disable()
    try:
        written([mixed(seed=1)])
        left = _commands()
        gc.collect()
        assert _commands() == left
    finally:
        gc.enable()


def _commands() -> int:
    return sum(issubclass(type(one), Command) for one in gc.get_objects())


def _last(changelog: Iterable[OutputRecord]) -> dict[bytes | None, bytes | None]:
    return {one.key: one.value for one in changelog}
