"""Which commands wait behind one that this program cannot decide, and which do not."""

from __future__ import annotations

from uuid import uuid4

import orjson
import pytest

from models.errors import PartitionFatal
from streams.state.parked import PARKED_PREFIX
from tests.unit.commands.deciding import NAMES, Deciding
from tests.unit.commands.parked_commands import in_order, register, replay, send, update, updates

pytestmark = pytest.mark.usefixtures("without_servers")


def test_what_comes_behind_a_failed_command_waits_and_is_decided_in_order(
    deciding: Deciding,
) -> None:
    register(deciding)
    register(deciding, "v")
    failing = update(deciding, "Bea")
    for name in ("DeactivateUser", "ReactivateUser"):
        send(deciding, name)
    send(deciding, "DeactivateUser", "v")
    deciding.decide()
    assert deciding.statuses() == [
        (0, "accepted"),
        (1, "accepted"),
        (2, "parked"),
        (3, "parked"),
        (4, "parked"),
        (5, "accepted"),
    ]
    assert [one["behind"] for one in deciding.outcomes()[2:5]] == [0, 1, 2]
    assert {one["code"] for one in deciding.outcomes()[2:5]} == {"decide-failed"}

    deciding.breaks = lambda _: False
    control_ = replay(deciding, failing)
    last = send(deciding, "DeactivateUser")
    deciding.decide()
    assert deciding.statuses()[6:] == [
        (2, "accepted"),
        (3, "accepted"),
        (4, "accepted"),
        (control_, "unparked"),
        (last, "accepted"),
    ]
    assert deciding.parked() == {}
    ended, left = deciding.outcomes()[6:9], deciding.outcomes()[9]
    assert [one["decidedBy"] for one in ended] == [control_] * 3
    assert (left["ended"], left["left"]) == (3, 0)
    events = [one for one in deciding.events() if one["aggregateId"] == "u"]
    assert [one["sequence"] for one in events] == [1, 2, 3, 4, 5]
    # The place on the log at which they were decided: views and tokens count on its order.
    assert [one["source"]["offset"] for one in events] == [0, *[control_] * 3, last]
    assert [one["commandId"] for one in events[1:4]] == [one["commandId"] for one in ended]


def test_the_record_on_the_changelog_is_in_the_transaction_and_never_a_tombstone(
    deciding: Deciding,
) -> None:
    register(deciding)
    failing = update(deciding, "Bea")
    deciding.decide()
    deciding.breaks = lambda _: False
    replay(deciding, failing)
    deciding.decide()
    values = [
        one.value for one in deciding.topics[NAMES.changelog] if one.key == PARKED_PREFIX + b"u"
    ]
    assert len(values) == 2
    assert values[0]
    assert values[1] == b""


def test_a_repeated_id_is_a_duplicate_of_what_is_parked(deciding: Deciding) -> None:
    id_ = str(uuid4())
    register(deciding)
    first = update(deciding, "Bea", id=id_)
    again = update(deciding, "Bea", id=id_)
    registered = deciding.send(b"u", deciding.log[0].value)
    deciding.decide(at_a_time=2)
    outcomes = {one["source"]["offset"]: one for one in deciding.outcomes()}
    assert outcomes[again]["status"] == "duplicate"
    assert outcomes[again]["of"] == {"status": "parked", "offset": first}
    assert outcomes[registered]["of"]["status"] == "accepted"
    deciding.breaks = lambda _: False
    replay(deciding, first)
    late = update(deciding, "Bea", id=id_)
    deciding.decide()
    assert deciding.outcomes()[-1]["source"]["offset"] == late
    assert deciding.outcomes()[-1]["of"]["status"] == "accepted"
    assert len(deciding.events()) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"type": "RenameUser", "aggregateId": "u"},
        {"type": "RenameUser", "aggregate_id": "u"},
        {"type": "RenameUser", "aggregate_id": "u", "aggregateId": None},
        {"type": "DeactivateUser", "aggregateId": "u", "schemaVersion": 2},
    ],
)
def test_what_a_newer_program_may_know_is_parked(deciding: Deciding, value: object) -> None:
    register(deciding)
    deciding.send(b"u", value)
    behind = send(deciding, "DeactivateUser")
    deciding.decide()
    assert [status for _, status in deciding.statuses()] == ["accepted", "parked", "parked"]
    assert deciding.parked()[b"u"].commands[1].offset == behind


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"u", b"no JSON"),
        (b"u", {"type": "UpdateUserProfile", "aggregateId": "u", "email": 1}),
        (b"u", {"type": "RenameUser", "aggregateId": "v"}),
        (b"u", {"type": "RenameUser", "aggregate_id": "v"}),
        (b"u", {"type": "RenameUser", "aggregateId": "u", "aggregate_id": "u"}),
        (b"u", {"type": "RenameUser"}),
        (b"u", {"type": "RenameUser", "aggregateId": "u", "id": "no id"}),
        (b"u", [1]),
    ],
)
def test_garbage_stops_nobody(deciding: Deciding, key: bytes, value: object) -> None:
    register(deciding)
    deciding.send(key, value)
    send(deciding, "DeactivateUser")
    update(deciding, "Bea")
    deciding.send(key, value)
    deciding.decide()
    statuses = [status for _, status in deciding.statuses()]
    assert statuses == ["accepted", "dead-lettered", "accepted", "parked", "dead-lettered"]


def test_a_command_of_another_partition_is_not_parked() -> None:
    deciding = in_order(partitions=2)
    deciding.send(b"u-3", {"type": "RenameUser", "aggregateId": "u-3"})
    deciding.send(b"u-4", {"type": "RenameUser", "aggregateId": "u-4"})
    deciding.send(b"u-5", {"type": "RenameUser", "aggregateId": "u-5"})
    deciding.decide()
    assert {status for _, status in deciding.statuses()} == {"parked", "dead-lettered"}


def test_an_erasure_overtakes_and_ends_what_waits(deciding: Deciding) -> None:
    register(deciding)
    id_ = str(uuid4())
    failing = update(deciding, "Bea", id=id_)
    behind = send(deciding, "DeactivateUser")
    wrong = send(deciding, "EraseUser", expectedVersion=7)
    erase = send(deciding, "EraseUser")
    again = update(deciding, "Bea", id=id_)
    deciding.decide()
    assert deciding.statuses()[3:] == [
        (wrong, "rejected"),
        (failing, "rejected"),
        (behind, "rejected"),
        (erase, "accepted"),
        (again, "duplicate"),
    ]
    assert deciding.outcomes()[4]["code"] == "erased"
    assert deciding.outcomes()[-1]["of"]["code"] == "erased"
    assert deciding.parked() == {}
    assert [one["type"] for one in deciding.events()] == ["UserRegistered", "UserErased"]


@pytest.mark.parametrize(
    ("expected", "ended"),
    [
        (None, [("rejected", "erased"), ("rejected", "user-not-found")]),
        (0, [("rejected", "erased"), ("rejected", "user-not-found")]),
        (7, [("rejected", "version-mismatch"), ("accepted", None)]),
    ],
)
def test_nobody_is_registered_after_the_erasure(
    deciding: Deciding, expected: int | None, ended: list[tuple[str, str | None]]
) -> None:
    deciding.breaks = lambda command: type(command).__name__ == "RegisterUser"
    failing = register(deciding)
    send(deciding, "EraseUser", expectedVersion=expected)
    deciding.decide()
    deciding.breaks = lambda _: False
    replay(deciding, failing)
    deciding.decide()
    statuses = [(one["status"], one.get("code")) for one in deciding.outcomes()]
    assert statuses[0] == ("parked", "decide-failed")
    assert statuses[1:-1] == ended
    assert deciding.audit().first_violation is None


def test_nothing_is_parked_for_an_erased_user(deciding: Deciding) -> None:
    register(deciding)
    send(deciding, "EraseUser")
    send(deciding, "RenameUser", lastName="Secret")
    deciding.decide()
    assert deciding.outcomes()[-1]["code"] == "unknown-type"
    assert deciding.statuses()[-1][1] == "dead-lettered"
    assert deciding.parked() == {}


def test_an_erasure_that_fails_is_not_parked(deciding: Deciding) -> None:
    register(deciding)
    deciding.breaks = lambda command: type(command).__name__ == "EraseUser"
    send(deciding, "EraseUser")
    send(deciding, "DeactivateUser")
    deciding.decide()
    statuses = [status for _, status in deciding.statuses()]
    assert statuses == ["accepted", "dead-lettered", "accepted"]


def test_in_todays_order_a_failure_is_a_dead_letter() -> None:
    deciding = Deciding()
    deciding.breaks = updates
    register(deciding)
    update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    deciding.decide()
    statuses = [status for _, status in deciding.statuses()]
    assert statuses == ["accepted", "dead-lettered", "accepted"]
    assert not deciding.parked()
    position = orjson.loads(deciding.topics[NAMES.changelog][-1].value or b"")
    assert "recent" not in position


def test_a_record_of_a_newer_program_stops_the_partition(deciding: Deciding) -> None:
    register(deciding)
    update(deciding, "Bea")
    deciding.decide()
    (one,) = (one for one in deciding.topics[NAMES.changelog] if one.key == PARKED_PREFIX + b"u")
    deciding.topics[NAMES.changelog].append(type(one)(one.key, b"\xff", ()))
    with pytest.raises(PartitionFatal, match=r"newer program"):
        deciding.decide()
