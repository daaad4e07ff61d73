"""When there is too much to park, commands are dead letters or the partition stops."""

from __future__ import annotations

import pytest

from models.errors import PartitionFatal
from streams.commands import parking
from streams.state import failure_window, parked
from tests.unit.commands.deciding import Deciding
from tests.unit.commands.parked_commands import in_order, register, replay, send, update

pytestmark = pytest.mark.usefixtures("without_servers")


def test_a_full_list_makes_dead_letters(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "MAX_COMMANDS", 2)
    register(deciding)
    for name in ("Bea", "Cid", "Dan"):
        update(deciding, name)
    deciding.decide()
    assert deciding.outcomes()[-1]["code"] == "parked-full"
    monkeypatch.setattr(parked, "MAX_BYTES", 10)
    register(deciding, "v")
    update(deciding, "Bea", "v")
    deciding.decide()
    assert deciding.outcomes()[-1]["code"] == "decide-failed"
    assert deciding.outcomes()[-1]["status"] == "dead-lettered"


@pytest.mark.parametrize(("bound", "most"), [("MAX_AGGREGATES", 1), ("MAX_PARTITION_BYTES", 200)])
def test_a_program_that_decides_nothing_stops_before_it_commits(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(parking, bound, most)
    for user in ("u", "v"):
        register(deciding, user)
        update(deciding, "Bea", user)
        update(deciding, "Cid", user)
    with pytest.raises(PartitionFatal, match=r"this program decides too little"):
        deciding.decide(at_a_time=3)
    assert len(deciding.outcomes()) == 3
    deciding.breaks = lambda _: False
    replay(deciding, 1)
    deciding.decide()
    assert deciding.parked() == {}


@pytest.mark.parametrize("order", ["skip", "aggregate"])
def test_no_producer_stops_a_partition_with_types_that_nobody_knows(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_window, "WINDOW", 100)
    monkeypatch.setattr(parking, "MAX_AGGREGATES", 4)
    deciding = in_order(dead_letter_order=order, dead_letter_limit=0.03)
    for number in range(10):
        send(deciding, "NoSuchCommand", f"u{number}")
    register(deciding)
    update(deciding, "Bea")
    register(deciding, "v")
    deciding.decide(at_a_time=1)
    statuses = [outcome["status"] for outcome in deciding.outcomes()]
    parked = 2 if order == "aggregate" else 0  # half of the room
    failed = "parked" if order == "aggregate" else "dead-lettered"
    assert statuses[:10] == ["parked"] * parked + ["dead-lettered"] * (10 - parked)
    assert statuses[10:] == ["accepted", failed, "accepted"]


def test_what_waits_leaves_room_for_what_fails(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARTITION_BYTES", 4000)
    send(deciding, "NoSuchCommand", "eve")
    for _ in range(20):
        update(deciding, "Eve", "eve", lastName="x" * 100)
    register(deciding)
    update(deciding, "Bea")
    deciding.decide()
    codes = [outcome.get("code") for outcome in deciding.outcomes()]
    assert codes[1] == "unknown-type"
    assert codes[20] == "parked-full"
    assert deciding.parked().keys() == {b"eve", b"u"}


@pytest.mark.parametrize("order", ["skip", "aggregate"])
def test_a_share_of_failures_stops_the_partition_and_is_remembered(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_window, "WINDOW", 100)
    deciding = in_order(dead_letter_order=order, dead_letter_limit=0.03)
    for number in range(3):
        register(deciding, f"u{number}")
        update(deciding, "Bea", f"u{number}")
        deciding.send(b"u", b"no JSON")
    deciding.decide(at_a_time=1)
    register(deciding, "v")
    update(deciding, "Bea", "v")
    for _ in range(2):  # a worker that starts again gets no other allowance
        with pytest.raises(PartitionFatal, match=r"CQRS_DEAD_LETTER_LIMIT"):
            deciding.decide(at_a_time=1)
    assert len(deciding.outcomes()) == 10
    deciding.breaks = lambda _: False
    deciding.decide(at_a_time=1)
    assert deciding.outcomes()[-1]["status"] == "accepted"
