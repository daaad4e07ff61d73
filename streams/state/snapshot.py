"""An aggregate as the state table holds it: state, version and dedupe window, as MessagePack.

Binary, because it is kept for every aggregate and written for every command: of the ids and times
in it, it takes half of what JSON takes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from streams.aggregate import Aggregate

S = TypeVar("S")

# How many of its last command ids an aggregate remembers: the documented dedupe window.
DEDUPE_WINDOW = 16


class RememberedAcceptance(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The answer to a command that was accepted."""

    command: bytes
    """The 16 bytes of its id."""
    sequence: int
    """Of its last event."""
    events: int
    """How many it has."""
    offset: int
    """Where the command lay."""


class RememberedRejection(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """The answer to a command that was rejected."""

    command: bytes
    code: str
    reason: str


Remembered = RememberedAcceptance | RememberedRejection


class Snapshot(msgspec.Struct, Generic[S], frozen=True, array_like=True):
    """State, number of events, and the answers to the last commands, oldest first."""

    state: S | None
    version: int
    remembered: tuple[Remembered, ...]

    def reply_to(self, command_id: bytes) -> Remembered | None:
        """What was answered to the command of this id, if it is remembered."""
        for answer in self.remembered:
            if answer.command == command_id:
                return answer
        return None

    def remembering(self, answer: Remembered) -> Snapshot[S]:
        """The same with one more answer in the window."""
        return Snapshot(self.state, self.version, (*self.remembered[1 - DEDUPE_WINDOW :], answer))


NO_SNAPSHOT: Snapshot[Any] = Snapshot(None, 0, ())


encode_snapshot: Callable[[Snapshot[Any]], bytes] = msgspec.msgpack.Encoder().encode
"""The entity, which exists, as the state table's value."""


def decode_snapshot(aggregate: Aggregate[S], value: bytes | None) -> Snapshot[S]:
    """The inverse of `encode_snapshot`; no value is an aggregate that does not exist.

    Raises:
        ValueError: it is no entity of this aggregate.
    """
    return NO_SNAPSHOT if value is None else _decoder(aggregate.state).decode(value)  # type: ignore[arg-type]


@cache
def _decoder(state: Any) -> msgspec.msgpack.Decoder[Snapshot[Any]]:
    return msgspec.msgpack.Decoder(Snapshot[state])
