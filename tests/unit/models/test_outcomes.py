import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Poison
from models.messages import Source
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    FirstAcceptance,
    FirstRejection,
    Outcome,
    Rejection,
    parse_outcome,
)
from models.wire import encode
from tests.unit.samples import COMMAND_ID, EVENT_ID, NOON, SOURCE, keys, times

COMMON: dict[str, Any] = {
    "command_id": COMMAND_ID,
    "aggregate_id": "user-1",
    "timestamp": NOON,
    "source": SOURCE,
}
WIRE = {
    "commandId": "11111111-1111-4111-8111-111111111111",
    "aggregateId": "user-1",
    "timestamp": "2026-11-23T12:00:00Z",
    "source": {"topic": "users.commands.v1", "partition": 3, "offset": 12345},
}
EVENTS = {
    "sequence": 4,
    "eventIds": ["22222222-2222-4222-8222-222222222222"],
    "token": "dG9rZW4",
}
YES: dict[str, Any] = {"sequence": 4, "event_ids": (EVENT_ID,), "token": "dG9rZW4"}
NO: dict[str, Any] = {"code": "user-exists", "reason": "User already exists"}


@pytest.mark.parametrize(
    ("outcome", "wire"),
    [
        (
            Accepted(**COMMON, **YES),
            {"status": "accepted", **WIRE, **EVENTS},
        ),
        (
            Rejection(**COMMON, **NO, correlation_id="visit-7"),
            {"status": "rejected", **WIRE, **NO, "correlationId": "visit-7"},
        ),
        (
            Duplicate(**COMMON, of=FirstAcceptance(**YES)),
            {"status": "duplicate", **WIRE, "of": {"status": "accepted", **EVENTS}},
        ),
        (
            Duplicate(**COMMON, of=FirstRejection(**NO)),
            {"status": "duplicate", **WIRE, "of": {"status": "rejected", **NO}},
        ),
        (
            DeadLettered(
                command_id=None,
                aggregate_id=None,
                timestamp=NOON,
                source=SOURCE,
                code="malformed-json",
                reason="the value is no JSON",
            ),
            {
                "status": "dead-lettered",
                "timestamp": WIRE["timestamp"],
                "source": WIRE["source"],
                "code": "malformed-json",
                "reason": "the value is no JSON",
            },
        ),
    ],
)
def test_outcomes_on_the_wire(outcome: Outcome, wire: dict[str, Any]) -> None:
    assert json.loads(encode(outcome)) == wire
    assert parse_outcome(json.dumps(wire).encode()) == outcome


common = {
    "command_id": st.none() | st.uuids(),
    "aggregate_id": st.none() | keys,
    "timestamp": times,
    "source": st.builds(Source, keys, st.integers(0, 999), st.integers(0, 2**63)),
    "correlation_id": st.none() | keys,
}
yes = {
    "sequence": st.integers(1, 2**63),
    "event_ids": st.lists(st.uuids()).map(tuple),
    "token": keys,
}
no = {"code": keys, "reason": keys}
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Accepted, **common, **yes),
    st.builds(Rejection, **common, **no),
    st.builds(
        Duplicate, **common, of=st.builds(FirstAcceptance, **yes) | st.builds(FirstRejection, **no)
    ),
    st.builds(DeadLettered, **common, **no),
)


@settings(deadline=None)
@given(outcomes)
def test_an_outcome_survives_the_wire(outcome: Outcome) -> None:
    assert parse_outcome(encode(outcome)) == outcome


@pytest.mark.parametrize(
    "fields",
    [
        {"status": None},
        {"status": "maybe"},
        {"status": "accepted", "sequence": 1},
        {"status": "accepted", "sequence": 0, "eventIds": []},
        {"status": "accepted", "sequence": 1, "eventIds": ["x"]},
        {"status": "accepted", "sequence": 1, "eventIds": []},
        {"status": "rejected", "code": "x"},
        {"status": "duplicate"},
        {"status": "duplicate", "of": {"status": "duplicate"}},
        {"status": "rejected", **NO, "source": None},
        {"status": "rejected", **NO, "timestamp": "now"},
        {"status": "rejected", **NO, "commandId": "x"},
    ],
)
def test_refuses_what_we_do_not_write(fields: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        parse_outcome(json.dumps({**WIRE, **fields}).encode())


def test_only_what_was_accepted_has_a_token() -> None:
    assert Accepted(**COMMON, **YES).token == YES["token"]
    assert Duplicate(**COMMON, of=FirstAcceptance(**YES)).token == YES["token"]
    assert Duplicate(**COMMON, of=FirstRejection(**NO)).token is None
    assert Rejection(**COMMON, **NO).token is None
    assert DeadLettered(**COMMON, **NO).token is None
