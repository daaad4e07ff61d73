"""What a command that came again is told, and one that cannot be read."""

from __future__ import annotations

from uuid import UUID

import orjson
import pytest

from models.errors import Poison
from models.messages import event_id, indexed_event_id
from models.outcomes import FirstAcceptance, FirstRejection
from models.tokens import Point, Token
from streams.commands.replies import dead_lettered, duplicate
from streams.kafka.records import Record
from streams.state.snapshot import RememberedAcceptance, RememberedRejection
from tests.unit.samples import COMMAND_ID, register

AGAIN = Record("users.commands.v1", 3, 29, 1_763_899_200_123, b"user-1", b"{}", ())


@pytest.mark.parametrize(
    ("first", "event_ids"),
    [
        pytest.param(
            RememberedAcceptance(COMMAND_ID.bytes, 4, 2, 17, indexed=False),
            (event_id(COMMAND_ID, "user-1", 3), event_id(COMMAND_ID, "user-1", 4)),
            id="of this program",
        ),
        pytest.param(
            RememberedAcceptance(COMMAND_ID.bytes, 4, 2, 17),
            (indexed_event_id(COMMAND_ID, 0), indexed_event_id(COMMAND_ID, 1)),
            id="of a program with other event ids",
        ),
    ],
)
def test_a_repeated_accepted_command_gets_its_first_outcome(
    first: RememberedAcceptance, event_ids: tuple[UUID, ...]
) -> None:
    command = register(id=COMMAND_ID, correlation_id="session-1")
    reply = duplicate(AGAIN, command, first, "cluster")
    assert (reply.command_id, reply.correlation_id) == (COMMAND_ID, "session-1")
    assert reply.source.offset == 29
    assert isinstance(reply.of, FirstAcceptance)
    assert reply.of.sequence == 4
    assert reply.of.event_ids == event_ids
    token = Token.parse(reply.of.token)
    assert token.points == (Point("users.commands.v1", 3, 17, "user-1", 4),)


def test_a_repeated_rejected_command_gets_the_reason() -> None:
    first = RememberedRejection(COMMAND_ID.bytes, "user-exists", "User already exists")
    reply = duplicate(AGAIN, register(id=COMMAND_ID), first, "cluster")
    assert reply.of == FirstRejection(code="user-exists", reason="User already exists")


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"aggregateId": "user-1"}, (COMMAND_ID, "user-1")),
        ({"aggregate_id": "user-1"}, (COMMAND_ID, "user-1")),
        ({"aggregateId": "user-1", "aggregate_id": "user-1"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_a_dead_lettered_command_is_named_by_its_ids_in_either_spelling(
    fields: dict[str, str], ids: tuple[UUID | None, str | None]
) -> None:
    value = orjson.dumps({"type": "RegisterUser", "id": str(COMMAND_ID), **fields})
    record = Record("users.commands.v1", 3, 29, 0, b"user-1", value, ())
    reply = dead_lettered(record, Poison("missing-field", "email: is missing"))
    assert (reply.command_id, reply.aggregate_id) == ids
