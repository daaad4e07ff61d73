"""Control records: what an operator wants to become of the parked commands of an aggregate.

They are records of the command topic with the aggregate's id as their key, so they are ordered,
owned, fenced and obeyed exactly once, as commands are. Whoever may send commands cannot forge one:
a header holds an HMAC of topic, key and value by `CQRS_CONTROL_KEY`, which producers do not have.

One that is copied does no harm. It names the first of the commands that were parked when it was
made, by its offset, and is rejected when another one is first by now; an offset is never first
again.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any, Final
from uuid import UUID

import msgspec

from models.errors import Fatal, Poison
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord
from streams.settings import Settings

SIGNATURE: Final = "cqrs-control"
"""Header with the HMAC-SHA256 of a control record."""

_PURPOSE = b"cqrs control record 1"


class Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", rename="camel"):
    """What an operator wants for the parked commands of an aggregate."""

    id: UUID
    aggregate_id: str
    first: int
    """Offset of the command that has to be the first of the parked ones."""


class ReplayParked(Control, frozen=True, kw_only=True, tag="ReplayParked"):
    """Decide the parked commands in order, until one fails."""


class DropParked(Control, frozen=True, kw_only=True, tag="DropParked"):
    """Make dead letters of the parked commands up to the one at offset `through`."""

    through: int


_decode: Any = msgspec.json.Decoder(ReplayParked | DropParked).decode
_NAMES = [b"ReplayParked", b"DropParked"]


def control_key(settings: Settings) -> bytes | None:
    """Return the control key of the settings, or None if there is none."""
    encoded = settings.secret("control_key")
    return None if encoded is None else base64.b64decode(encoded)


def required_control_key(settings: Settings) -> bytes:
    """Return the control key. Raises Fatal if there is none."""
    key = control_key(settings)
    if key is None:
        raise Fatal(
            "CQRS_CONTROL_KEY is not set: set the one of the command workers; if there is none "
            "yet, `cqrs keys new --control` makes one"
        )
    return key


def encode_control(control: Control, topic: str, key: bytes) -> OutputRecord:
    """Return the record of a control, signed with the control key, for this command topic."""
    aggregate, value = control.aggregate_id.encode(), msgspec.json.encode(control)
    return OutputRecord(aggregate, value, [(SIGNATURE, _sign(key, topic, aggregate, value))])


def has_form_of_control(value: bytes) -> bool:
    """Return whether a value is a control and nothing else, whoever has written it."""
    try:
        encoded = msgspec.json.encode(_decode(value))
    except (ValueError, RecursionError):
        return False
    return bool(msgspec.json.decode(encoded) == msgspec.json.decode(value))


def read_control(record: Record, key: bytes | None) -> Control | None:
    """Return the control in a record; None if it is none, as nearly all are.

    Args:
        record: of the command topic.
        key: the control key; without one no control is obeyed.

    Raises:
        Poison: it was not signed with the key, or cannot be read. It must not be obeyed.
    """
    if record.value is None or not any(name in record.value for name in _NAMES):
        return None
    try:
        control: Control = _decode(record.value)
    except (ValueError, RecursionError):
        return None  # a command that is refused, whatever it says
    signature = next((value for name, value in record.headers if name == SIGNATURE), None)
    aggregate = control.aggregate_id.encode()
    if key is None:
        raise Poison("forged-control", "no control record is obeyed without CQRS_CONTROL_KEY")
    if record.key != aggregate or not hmac.compare_digest(
        signature or b"", _sign(key, record.topic, aggregate, record.value)
    ):
        raise Poison("forged-control", "the control record is not signed with CQRS_CONTROL_KEY")
    return control


def _sign(key: bytes, *parts: str | bytes) -> bytes:
    """Return the HMAC of the parts; each with its length, so that none can pass for another."""
    message = hmac.new(key, _PURPOSE, "sha256")
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        message.update(len(data).to_bytes(8, "big") + data)
    return message.digest()
