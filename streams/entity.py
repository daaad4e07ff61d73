"""An aggregate as the state table holds it: state, version and dedupe window, as one JSON array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson

from models.messages import event_id
from models.outcomes import FirstAcceptance, FirstRejection
from streams.aggregate import Aggregate

S = TypeVar("S")

# How many of its last command ids an aggregate remembers: the documented dedupe window.
DEDUPE_WINDOW = 16

# What was answered to a command, as it is stored: ``[id, sequence, number of events, offset]`` if
# it was accepted, ``[id, code, reason]`` if it was rejected. The id is 32 hex digits, the offset
# that of the command.
Answer = list[Any]


@dataclass(frozen=True, slots=True)
class Entity(Generic[S]):
    """State, number of events, and the answers to the last commands, oldest first."""

    state: S | None
    version: int
    answers: list[Answer]

    def answer_to(
        self, command_id: UUID, token: Callable[[int, int], str]
    ) -> FirstAcceptance | FirstRejection | None:
        """What was answered to this command, if it is remembered.

        `token` makes the token of this aggregate's command at an offset, with its sequence.
        """
        for id_hex, *said in self.answers:
            if id_hex == command_id.hex:
                return _first_answer(command_id, said, token)
        return None

    def remembering(self, answer: Answer) -> Entity[S]:
        """The same with one more answer in the window."""
        return Entity(self.state, self.version, [*self.answers[1 - DEDUPE_WINDOW :], answer])


def _first_answer(
    command_id: UUID, said: list[Any], token: Callable[[int, int], str]
) -> FirstAcceptance | FirstRejection:
    if isinstance(said[0], str):
        code, reason = said
        return FirstRejection(code=code, reason=reason)
    sequence, events, offset = said
    ids = tuple(event_id(command_id, index) for index in range(events))
    return FirstAcceptance(sequence=sequence, event_ids=ids, token=token(offset, sequence))


def encode_entity(aggregate: Aggregate[S], entity: Entity[S]) -> bytes:
    """The entity, which exists, as the state table's value."""
    assert entity.state is not None
    state = aggregate.state_to_wire(entity.state)
    # A copy: what orjson returns holds on to its buffer, ten times as large, and this is kept.
    return bytes(memoryview(orjson.dumps((entity.version, state, entity.answers))))


def decode_entity(aggregate: Aggregate[S], value: bytes | None) -> Entity[S]:
    """The inverse of `encode_entity`; no value is an aggregate that does not exist."""
    if value is None:
        return Entity(None, 0, [])
    version, state, answers = orjson.loads(value)
    return Entity(aggregate.state_from_wire(state), version, answers)
