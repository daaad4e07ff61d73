"""Encrypt personal data with the data key of its aggregate: functions on bytes and JSON objects.

The cipher is AES-256-GCM. Sealed data is a nonce of 12 random bytes, the ciphertext and the tag. It
is bound to its place: what it is, and which aggregate it is of. In any other place it cannot be
opened.
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
"""Field of an event on the wire that contains its personal fields, sealed, as base64."""

_FIELD_IN_JSON = f'"{PERSONAL}"'.encode()

# First byte of a sealed state or parked command. A plain one is a MessagePack array, which starts
# with another.
_SEALED_STATE = b"\x01"

_NONCE_BYTES = 12

# What is sealed has that many bytes more: the nonce and the tag.
OVERHEAD_BYTES = _NONCE_BYTES + 16


class DecryptionError(ValueError):
    """The data was sealed with another key or for another place, or changed, or its key is gone."""


def new_key() -> bytes:
    """Create a data key or a master key: 32 random bytes."""
    return AESGCM.generate_key(8 * KEY_BYTES)


def seal(key: bytes | AESGCM, data: bytes, place: bytes) -> bytes:
    """Encrypt the data with the key, for this place.

    A key that is used often is prepared once, as `AESGCM`: that takes longer than encrypting a few
    fields, and 2.5 KB.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _prepared(key).encrypt(nonce, data, place)


def unseal(key: bytes | AESGCM, sealed: bytes, place: bytes) -> bytes:
    """Decrypt what `seal` returned for the same key and place. Raises DecryptionError."""
    try:
        return _prepared(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
    except (InvalidTag, ValueError):  # ValueError: it is too short
        raise DecryptionError("wrong key, or the data was changed") from None


def _prepared(key: bytes | AESGCM) -> AESGCM:
    return AESGCM(key) if isinstance(key, bytes) else key


def may_be_sealed(value: bytes | None) -> bool:
    """Whether the bytes of an event may contain sealed fields, found without parsing them."""
    return value is not None and _FIELD_IN_JSON in value


def seal_event(wire: dict[str, Any], personal: Collection[str], key: bytes) -> None:
    """Replace the personal fields of an event by one sealed field; changes `wire`."""
    fields = {name: wire.pop(name) for name in personal if name in wire}
    if fields:
        sealed = seal(key, orjson.dumps(fields), _place_of_event(wire))
        wire[PERSONAL] = base64.b64encode(sealed).decode()


def open_event(wire: dict[str, Any], personal: Collection[str], key: bytes | None) -> None:
    """Put the personal fields back in; without a key, each is the empty string. Changes `wire`.

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
    """Seal a record of the state table as a whole."""
    return _SEALED_STATE + seal(key, value, _place(b"state", aggregate_id))


def is_sealed_state(value: bytes | None) -> bool:
    """Whether this record of the state table, or parked command, is sealed."""
    return value is not None and value.startswith(_SEALED_STATE)


def open_state(value: bytes, aggregate_id: bytes, key: bytes | None) -> bytes:
    """Open a record of the state table; one that is not sealed is returned unchanged.

    Raises:
        DecryptionError: it is sealed, and `key` is None or another one, or it was changed.
    """
    return _open(value, _place(b"state", aggregate_id), key)


def seal_dead_letter(content: bytes, aggregate_id: bytes, key: bytes) -> bytes:
    """Seal the content of a dead letter."""
    return seal(key, content, _place(b"dead letter", aggregate_id))


def open_dead_letter(value: bytes, aggregate_id: bytes, key: bytes) -> bytes:
    """Open the content of a dead letter. Raises DecryptionError."""
    return unseal(key, value, _place(b"dead letter", aggregate_id))


def seal_parked(content: bytes, aggregate_id: bytes, offset: int, key: bytes) -> bytes:
    """Seal value and headers of a parked command."""
    return _SEALED_STATE + seal(key, content, _place_of_parked(aggregate_id, offset))


def open_parked(content: bytes, aggregate_id: bytes, offset: int, key: bytes | None) -> bytes:
    """Open what `seal_parked` returned; what is not sealed is returned unchanged.

    Raises:
        DecryptionError: it is sealed, and `key` is None or another one, or it was changed.
    """
    return _open(content, _place_of_parked(aggregate_id, offset), key)


def _open(value: bytes, place: bytes, key: bytes | None) -> bytes:
    """Open what is in the changelog if it is sealed. Raises as `open_state`."""
    if not is_sealed_state(value):
        return value
    if key is None:
        raise DecryptionError("its key is gone")
    return unseal(key, value[len(_SEALED_STATE) :], place)


def _place_of_parked(aggregate_id: bytes, offset: int) -> bytes:
    return _place(b"parked", b"%b\0%d" % (aggregate_id, offset))


def _place_of_event(wire: dict[str, Any]) -> bytes:
    name = f"{wire.get('aggregateId')}\0{wire.get('sequence')}"
    return _place(b"event", name.encode(errors="surrogatepass"))  # nothing sealed has surrogates


def _place(kind: bytes, name: bytes) -> bytes:
    return kind + b"\0" + name  # ids have no control characters
