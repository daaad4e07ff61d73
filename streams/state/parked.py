"""Parked commands of an aggregate: one that failed, and those that wait behind it, in order.

Pure: values, and how the changelog records them. An aggregate with parked commands has one record
in the changelog, in the transaction of whatever changed it. Its key begins with the byte of our own
records, so it is no state. A record without commands is written as an empty value, never as a
tombstone: a local store may be older than the time for which Kafka keeps tombstones.

The command ids are in the clear, so that repeats and lists need no data key; value and headers of a
command are sealed as a dead letter's value is.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Final

import msgspec
from msgspec.structs import replace

from streams.state.store import RESERVED

PARKED_PREFIX: Final = RESERVED + b"parked "

MAX_COMMANDS: Final = 64
"""Most parked commands of one aggregate."""

MAX_BYTES: Final = 2 << 20
"""Most bytes of them: one record of the changelog. A command of the largest size fits."""


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why the first of the parked commands could not be decided; code and reason of `Poison`."""

    code: str
    reason: str
    attempts: int = 1
    """How often deciding it failed; 0: it has not been tried, the one before it was dropped."""


class ParkedCommand(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command that waits: the whole record but for its topic, its partition and its key."""

    offset: int
    timestamp: int
    """Milliseconds since the epoch."""
    command: bytes
    """Id of the command, 16 bytes."""
    content: bytes
    """Value and headers (`encode_content`), perhaps sealed."""


class ParkedQueue(msgspec.Struct, frozen=True, array_like=True):
    """The parked commands of one aggregate, at least one, in the order of their offsets."""

    failure: Failure
    commands: tuple[ParkedCommand, ...]

    @property
    def size(self) -> int:
        """Bytes of the contents."""
        return sum(len(one.content) for one in self.commands)

    @property
    def first(self) -> ParkedCommand:
        """The command that failed; the others wait for it."""
        return self.commands[0]

    def find(self, command_id: bytes) -> ParkedCommand | None:
        """Return the command with this id, or None if it does not wait here."""
        return next((one for one in self.commands if one.command == command_id), None)

    def has_room_for(self, content: bytes) -> bool:
        """Return whether one more command with this content may wait."""
        return len(self.commands) < MAX_COMMANDS and self.size + len(content) <= MAX_BYTES

    def behind(self, last: ParkedCommand) -> ParkedQueue:
        """Return these with one more command behind all others."""
        return ParkedQueue(self.failure, (*self.commands, last))

    def failed_again(self, ended: int, code: str, reason: str) -> ParkedQueue:
        """Return what is left when `ended` commands were decided and the next one failed."""
        attempts = self.failure.attempts + 1 if ended == 0 else 1
        return ParkedQueue(Failure(code, reason, attempts), self.commands[ended:])

    def without_first(self, number: int) -> ParkedQueue | None:
        """Return what is left without the first `number` commands; None if nothing is."""
        left = self.commands[number:]
        return ParkedQueue(replace(self.failure, attempts=0), left) if left else None

    def count_through(self, offset: int) -> int:
        """Return how many of the commands are up to this offset (inclusive)."""
        return bisect_right(self.commands, offset, key=attrgetter("offset"))


class Content(msgspec.Struct, frozen=True, array_like=True):
    """Value and headers of a parked command's record."""

    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]


encode_content = msgspec.msgpack.Encoder().encode
decode_content = msgspec.msgpack.Decoder(Content).decode

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ParkedQueue).decode


def parked_key(aggregate_id: bytes) -> bytes:
    """Return the changelog's key for the parked commands of an aggregate."""
    return PARKED_PREFIX + aggregate_id


def parked_id(key: bytes) -> bytes | None:
    """Return the aggregate id in a key of the changelog; None if it is of another kind."""
    return key[len(PARKED_PREFIX) :] if key.startswith(PARKED_PREFIX) else None


def park(first: ParkedCommand, code: str, reason: str) -> ParkedQueue | None:
    """Return an aggregate's parked commands, when its first one failed; None: it is too large."""
    return ParkedQueue(Failure(code, reason), (first,)) if len(first.content) <= MAX_BYTES else None


def encode_parked(parked: ParkedQueue | None) -> bytes:
    """Encode a value of the changelog; None is that nothing is parked any more."""
    return b"" if parked is None else _encode(parked)


def decode_parked(value: bytes | None) -> ParkedQueue | None:
    """Decode what `encode_parked` returned; a key that is not there is nothing, too.

    Raises:
        ValueError: it is none of ours.
    """
    return _decode(value) if value else None
