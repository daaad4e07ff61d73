"""Snapshot of an aggregate in the state table: its state, version and dedupe window.

It is encoded as MessagePack, because it is kept for every aggregate and written for every command:
the ids and times in it take half of the bytes that they take in JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from streams.aggregate import Aggregate

S = TypeVar("S")

# Number of its last commands that an aggregate remembers: the documented dedupe window.
DEDUPE_WINDOW = 16


class RememberedAcceptance(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Reply to a remembered accepted command."""

    command: bytes
    """Id of the command, 16 bytes."""
    sequence: int
    """Sequence of its last event."""
    events: int
    """Number of events that it produced."""
    offset: int
    """Offset of the command in its partition."""
    indexed: bool = True
    """Whether its events have ids of `indexed_event_id`; older programs do not write this."""


class RememberedRejection(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """Reply to a remembered rejected command."""

    command: bytes
    """Id of the command, 16 bytes."""
    code: str
    reason: str


Remembered = RememberedAcceptance | RememberedRejection


class Snapshot(msgspec.Struct, Generic[S], frozen=True, array_like=True):
    """State, version (number of events), and the replies to the last commands, oldest first."""

    state: S | None
    version: int
    remembered: tuple[Remembered, ...]

    def reply_to(self, command_id: bytes) -> Remembered | None:
        """Return the reply to the command with this id, or None if it is not remembered."""
        for reply in self.remembered:
            if reply.command == command_id:
                return reply
        return None

    def remembering(self, reply: Remembered) -> Snapshot[S]:
        """Return a copy that remembers one more reply; a full window drops its oldest one."""
        return Snapshot(self.state, self.version, (*self.remembered[1 - DEDUPE_WINDOW :], reply))


NO_SNAPSHOT: Snapshot[Any] = Snapshot(None, 0, ())


encode_snapshot: Callable[[Snapshot[Any]], bytes] = msgspec.msgpack.Encoder().encode
"""Encode the snapshot of an aggregate that exists, as a value of the state table."""


def decode_snapshot(aggregate: Aggregate[S], value: bytes | None) -> Snapshot[S]:
    """Decode a value of the state table; None is an aggregate that does not exist.

    Raises:
        ValueError: it is no snapshot of this kind of aggregate.
    """
    return NO_SNAPSHOT if value is None else _decoder(aggregate.state).decode(value)  # type: ignore[arg-type]


def decode_remembered(value: bytes) -> tuple[int, tuple[Remembered, ...]]:
    """Decode version and dedupe window of a snapshot, whatever the type of its state.

    Raises:
        ValueError: it is no snapshot.
    """
    snapshot = _decoder(Any).decode(value)
    return snapshot.version, snapshot.remembered


@cache
def _decoder(state: Any) -> msgspec.msgpack.Decoder[Snapshot[Any]]:
    return msgspec.msgpack.Decoder(Snapshot[state])
