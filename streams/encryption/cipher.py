"""Personal data under the key of its aggregate: pure functions on bytes and JSON objects.

AES-256-GCM. What is sealed is a nonce of 12 random bytes, the ciphertext and the tag, and is bound
to its place (what it is, and of whom): put anywhere else it does not open. To destroy the key is to
destroy all that was sealed with it, wherever copies of it lie.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Collection
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32

PERSONAL = "personal"
"""The field of an event on the wire that stands for its personal fields, sealed: base64."""

_IN_EVENT = f'"{PERSONAL}"'.encode()

# What a sealed state starts with. A plain one is JSON.
_SEALED = b"\x01"

_NONCE_BYTES = 12


class DecryptionError(ValueError):
    """It was sealed with another key or for another place, was changed, or its key is gone."""


def new_key() -> bytes:
    """A key for one aggregate, or to wrap those of all."""
    return AESGCM.generate_key(8 * KEY_BYTES)


def seal(key: bytes, data: bytes, place: bytes) -> bytes:
    """The data, for nobody to read without the key."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, place)


def unseal(key: bytes, sealed: bytes, place: bytes) -> bytes:
    """The inverse of `seal`. Raises DecryptionError."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
    except (InvalidTag, ValueError):  # the latter for what is too short
        raise DecryptionError("it does not open") from None


def may_be_sealed(value: bytes | None) -> bool:
    """Whether these bytes of an event can have sealed fields; without reading them."""
    return value is not None and _IN_EVENT in value


def seal_event(wire: dict[str, Any], personal: Collection[str], key: bytes) -> None:
    """Replace the personal fields of an event by one sealed field, in place."""
    fields = {name: wire.pop(name) for name in personal if name in wire}
    if fields:
        sealed = seal(key, orjson.dumps(fields), _place_of_event(wire))
        wire[PERSONAL] = base64.b64encode(sealed).decode()


def open_event(wire: dict[str, Any], personal: Collection[str], key: bytes | None) -> None:
    """The inverse, in place; without the key every personal field is the empty string.

    Raises:
        DecryptionError: the key is another one, or the event was changed.
    """
    sealed = wire.pop(PERSONAL, None)
    if sealed is None:
        return
    if key is None:
        wire.update(dict.fromkeys(personal, ""))
        return
    try:
        raw = base64.b64decode(sealed, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise DecryptionError("it is not base64") from None
    wire.update(orjson.loads(unseal(key, raw, _place_of_event(wire))))


def seal_state(value: bytes, aggregate_id: bytes, key: bytes) -> bytes:
    """A record of the state table, sealed as a whole."""
    return _SEALED + seal(key, value, _place(b"state", aggregate_id))


def is_sealed_state(value: bytes | None) -> bool:
    """Whether this record of the state table is sealed."""
    return value is not None and value.startswith(_SEALED)


def open_state(value: bytes, aggregate_id: bytes, key: bytes | None) -> bytes:
    """The inverse of `seal_state`; what is plain is left as it is.

    Raises:
        DecryptionError: it is sealed, and the key is gone or another one.
    """
    if not is_sealed_state(value):
        return value
    if key is None:
        raise DecryptionError("its key is gone")
    return unseal(key, value[len(_SEALED) :], _place(b"state", aggregate_id))


def seal_dead_letter(value: bytes, aggregate_id: bytes, key: bytes) -> bytes:
    """The value of a dead letter, sealed."""
    return seal(key, value, _place(b"dead letter", aggregate_id))


def open_dead_letter(value: bytes, aggregate_id: bytes, key: bytes) -> bytes:
    """The inverse of `seal_dead_letter`. Raises DecryptionError."""
    return unseal(key, value, _place(b"dead letter", aggregate_id))


def _place_of_event(wire: dict[str, Any]) -> bytes:
    return _place(b"event", f"{wire.get('aggregateId')}\0{wire.get('sequence')}".encode())


def _place(kind: bytes, name: bytes) -> bytes:
    return kind + b"\0" + name  # ids have no control characters
