"""What `verify` says about parked commands, and about what goes wrong with them."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from streams.commands import partition as command_partition
from streams.kafka.dead_letters import DECIDED_BY, marker
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord
from streams.state.parked import PARKED_PREFIX, encode_parked
from tests.unit.commands.deciding import NAMES, Deciding, Written
from tests.unit.commands.parked_commands import drop, in_order, register, replay, send, update


@pytest.fixture(autouse=True)
def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)


@pytest.fixture
def waiting() -> Deciding:
    """Offset 0 registers, 1 to 3 wait, 4 repeats 1."""
    deciding = in_order()
    register(deciding)
    update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    send(deciding, "ReactivateUser")
    deciding.send(b"u", deciding.log[1].value)
    deciding.decide()
    return deciding


@pytest.fixture
def replayed(waiting: Deciding) -> Deciding:
    """Offset 5 replays."""
    waiting.breaks = lambda _: False
    replay(waiting, 1)
    waiting.decide()
    return waiting


def test_what_waits_is_counted(waiting: Deciding) -> None:
    report = waiting.audit()
    assert report.first_violation is None
    assert (report.commands, report.accepted, report.parked, report.duplicate) == (5, 1, 3, 1)


def test_what_was_replayed_or_dropped_has_one_outcome(replayed: Deciding) -> None:
    report = replayed.audit()
    assert report.first_violation is None
    assert (report.commands, report.accepted, report.parked, report.controls) == (6, 4, 0, 1)


def test_what_is_decided_after_the_position_is_left_out(replayed: Deciding) -> None:
    """The outcomes are read after the state was: a replay may have happened between."""
    changelog = replayed.topics[NAMES.changelog]
    first_position = next(
        index for index, one in enumerate(changelog) if (one.key or b"").startswith(b"\0position")
    )
    del changelog[first_position + 1 :]
    report = replayed.audit()
    assert report.first_violation is None
    assert (report.accepted, report.parked) == (1, 3)


def test_dead_letters_of_dropped_commands_are_counted(waiting: Deciding) -> None:
    drop(waiting, 1, 2)
    waiting.decide()
    report = waiting.audit()
    assert report.first_violation is None
    assert (report.dead, report.parked) == (2, 1)
    letters = waiting.topics[NAMES.dead_commands]
    sent = Record(NAMES.dead_commands, 0, 0, 0, b"u", letters[0].value)
    letters.append(marker(sent))
    assert waiting.audit().first_violation is None
    letters[0] = OutputRecord(
        letters[0].key,
        letters[0].value,
        [(name, b"no number" if name == DECIDED_BY else one) for name, one in letters[0].headers],
    )
    assert waiting.audit().first_violation is None


def test_the_header_of_a_producer_does_not_say_when_its_command_was_decided() -> None:
    deciding = in_order()
    register(deciding)
    deciding.send(b"u", b"no JSON", (DECIDED_BY, b"999999"))
    deciding.decide()
    report = deciding.audit()
    assert report.first_violation is None
    assert report.dead == 1


def outcomes(deciding: Deciding) -> list[OutputRecord]:
    return deciding.topics[NAMES.outcomes]


def forget_what_is_parked(deciding: Deciding) -> None:
    deciding.topics[NAMES.changelog].append(OutputRecord(PARKED_PREFIX + b"u", encode_parked(None)))


def park_again(deciding: Deciding) -> None:
    first = next(one for one in deciding.topics[NAMES.changelog] if one.key == PARKED_PREFIX + b"u")
    deciding.topics[NAMES.changelog].append(first)


def park_what_is_not_ours(deciding: Deciding) -> None:
    deciding.topics[NAMES.changelog].append(OutputRecord(PARKED_PREFIX + b"u", b"\xff"))


def write_twice(number: int) -> Callable[[Deciding], None]:
    def twice(deciding: Deciding) -> None:
        outcomes(deciding).append(outcomes(deciding)[number])

    return twice


def leave_out(number: int) -> Callable[[Deciding], None]:
    def left_out(deciding: Deciding) -> None:
        del outcomes(deciding)[number]

    return left_out


@pytest.mark.parametrize(
    ("damage", "violation"),
    [
        (forget_what_is_parked, "offset 1 was parked, and is neither parked nor decided"),
        (park_what_is_not_ours, "the parked commands of u cannot be read"),
        (write_twice(1), "offset 1 was parked 2 times"),
        (leave_out(2), "offset 2 is parked, and no outcome says so"),
        (leave_out(1), "of one at offset 1 that was not parked"),
    ],
)
def test_damage_while_commands_wait(
    waiting: Deciding, damage: Callable[[Deciding], None], violation: str
) -> None:
    damage(waiting)
    assert violation in (waiting.audit().first_violation or "")


def other_token(deciding: Deciding) -> None:
    late = orjson.loads(outcomes(deciding)[5].value or b"")
    late["token"] = orjson.loads(outcomes(deciding)[0].value or b"")["token"]
    outcomes(deciding)[5] = OutputRecord(b"u", orjson.dumps(late))


@pytest.mark.parametrize(
    ("damage", "violation"),
    [
        (park_again, "offset 1 is parked, and has an outcome"),
        (leave_out(5), "offset 1 was parked, and is neither parked nor decided"),
        (write_twice(5), "offset 1 has 2 outcomes"),
        (other_token, "is not of this command"),
    ],
)
def test_damage_of_a_replay(
    replayed: Deciding, damage: Callable[[Deciding], None], violation: str
) -> None:
    damage(replayed)
    report = replayed.audit()
    found = [one.first or "" for one in report.findings.values() if not one.ok]
    assert any(violation in line for line in found)


def test_an_event_of_a_replay_without_an_acceptance(replayed: Deciding) -> None:
    del outcomes(replayed)[5:7]
    assert "which was not accepted" in (replayed.audit().findings["I1"].first or "")


def test_commands_that_were_decided_out_of_order() -> None:
    """As if nothing had waited."""
    deciding = in_order()
    register(deciding)
    update(deciding, "Bea")
    send(deciding, "DeactivateUser")
    deciding.decide(at_a_time=2)
    outcome = orjson.loads(outcomes(deciding)[2].value or b"")
    assert outcome["status"] == "parked"
    deciding.breaks = lambda _: False
    replay(deciding, 1)
    deciding.decide()
    late = outcomes(deciding)[3:5]
    for place, one in enumerate(late):
        said = orjson.loads(one.value or b"")
        said["source"]["offset"] = 2 - place
        outcomes(deciding)[3 + place] = OutputRecord(b"u", orjson.dumps(said))
    assert "after the later one" in (deciding.audit().findings["I2"].first or "")
