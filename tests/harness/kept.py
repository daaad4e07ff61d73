"""What a version keeps for later ones: an example of each, how it is written, and how it is read.

A release notes the bytes (`tests/harness/wire.py`), and every later version has to read the same in
them. Commands, events, outcomes and states are not here: they have schemas and a version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from models.events import UserRegistered
from models.tokens import Point, Token
from streams.encryption.cipher import (
    open_dead_letter,
    open_event,
    open_parked,
    open_state,
    seal_dead_letter,
    seal_event,
    seal_parked,
    seal_state,
)
from streams.encryption.keys import MasterKeys
from streams.state.failure_window import FailureWindow
from streams.state.parked import (
    Content,
    Failure,
    ParkedCommand,
    ParkedQueue,
    decode_content,
    decode_parked,
    encode_content,
    encode_parked,
    parked_id,
    parked_key,
)
from streams.state.snapshot import (
    RememberedAcceptance,
    RememberedRejection,
    Snapshot,
    decode_remembered,
    encode_snapshot,
)
from streams.state.store import Position, decode_position, encode_position
from streams.views.checkpoint import Checkpoint, Revision, read_checkpoint
from streams.views.tally import Tally

_ID = b"user-1"
_COMMAND = UUID("11111111-1111-4111-8111-111111111111").bytes
_KEY = bytes(range(32))
_MASTER = MasterKeys(bytes(range(32, 64)))
_OFFSET = 17
_REVISION = Revision(5, 1)
_PERSONAL = UserRegistered.personal
_EVENT = {"aggregateId": "user-1", "sequence": 1, "email": "anna@example.org", "firstName": "Anna"}

_WINDOW = (
    RememberedAcceptance(_COMMAND, sequence=4, events=2, offset=_OFFSET),
    RememberedRejection(_COMMAND, code="not-active", reason="the user is not active"),
)


@dataclass(frozen=True)
class Kept:
    """Something that is kept: a value, the bytes that this version makes of it, and back."""

    value: Any
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


def _write_checkpoint(checkpoint: Checkpoint) -> bytes:
    return orjson.dumps(checkpoint.to_source())


def _read_checkpoint(stored: bytes) -> Checkpoint:
    seq_no, primary_term = _REVISION
    found = {"found": True, "_seq_no": seq_no, "_primary_term": primary_term}
    return read_checkpoint("an index", {**found, "_source": orjson.loads(stored)})


def _write_event(event: Mapping[str, Any]) -> bytes:
    wire = dict(event)
    seal_event(wire, _PERSONAL, _KEY)
    return orjson.dumps(wire)


def _read_event(stored: bytes) -> Mapping[str, Any]:
    wire: dict[str, Any] = orjson.loads(stored)
    open_event(wire, _PERSONAL, _KEY)
    return wire


KEPT: Mapping[str, Kept] = {
    "position": Kept(
        Position(
            *(_OFFSET, "AAAAAAAAAAAAAAAAAAAAAA", 4, "1.a1b2c3d4", 3, FailureWindow(9, 2, 1)),
            *(5, 6, 7),
        ),
        encode_position,
        decode_position,
    ),
    "dedupe window": Kept(
        (4, _WINDOW),
        lambda value: encode_snapshot(Snapshot(None, *value)),
        decode_remembered,
    ),
    "parked commands": Kept(
        ParkedQueue(
            Failure("defect", "KeyError", attempts=2), (ParkedCommand(_OFFSET, 9, _COMMAND, b"{}"),)
        ),
        encode_parked,
        decode_parked,
    ),
    "key of parked commands": Kept(_ID, parked_key, parked_id),
    "content of a parked command": Kept(
        Content(b"{}", (("traceparent", b"00"), ("empty", None))), encode_content, decode_content
    ),
    "data key": Kept(
        _KEY,
        lambda value: _MASTER.wrap(_ID, value),
        lambda stored: _MASTER.unwrap(_ID, stored),
    ),
    "sealed event": Kept(_EVENT, _write_event, _read_event),
    "sealed state": Kept(
        b"state",
        lambda value: seal_state(value, _ID, _KEY),
        lambda stored: open_state(stored, _ID, _KEY),
    ),
    "sealed parked command": Kept(
        b"content",
        lambda value: seal_parked(value, _ID, _OFFSET, _KEY),
        lambda stored: open_parked(stored, _ID, _OFFSET, _KEY),
    ),
    "sealed dead letter": Kept(
        b"content",
        lambda value: seal_dead_letter(value, _ID, _KEY),
        lambda stored: open_dead_letter(stored, _ID, _KEY),
    ),
    "checkpoint": Kept(
        Checkpoint(9, _OFFSET, 4, "a cluster", Tally(8, 0xFEDCBA9876543210), "a topic", _REVISION),
        _write_checkpoint,
        _read_checkpoint,
    ),
    "token": Kept(
        Token("a cluster", (Point("users.commands.v1", 3, _OFFSET, "user-1", 4),)),
        lambda value: str(value).encode(),
        lambda stored: Token.parse(stored.decode()),
    ),
}
