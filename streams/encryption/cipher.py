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

# A call of the system costs as much as encrypting a few fields.
_NONCES_AT_A_TIME = 64

# What is sealed has that many bytes more: the nonce and the tag.
OVERHEAD_BYTES = _NONCE_BYTES + 16


Key = bytes | AESGCM
"""A key; one that is used more than once is prepared, as `AESGCM`: that takes twice as long as
encrypting a few fields, and 2.5 KB."""


class DecryptionError(ValueError):
    """The data was sealed with another key or for another place, or changed, or its key is gone."""


def new_key() -> bytes:
    """Create a data key or a master key: 32 random bytes."""
    return os.urandom(KEY_BYTES)


def seal(key: Key, data: bytes, place: bytes) -> bytes:
    """Encrypt the data with the key, for this place."""
    nonce = _new_nonce()
    return nonce + _prepared(key).encrypt(nonce, data, place)


def unseal(key: Key, sealed: bytes, place: bytes) -> bytes:
    """Decrypt what `seal` returned for the same key and place. Raises DecryptionError."""
    try:
        return _prepared(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
    except (InvalidTag, ValueError):  # ValueError: it is too short
        raise DecryptionError("wrong key, or the data was changed") from None


def _prepared(key: Key) -> AESGCM:
    return AESGCM(key) if isinstance(key, bytes) else key


_nonces: list[bytes] = []
os.register_at_fork(after_in_child=_nonces.clear)  # two processes must never use the same


def _new_nonce() -> bytes:
    """Return 12 random bytes that nobody else gets, in whatever thread."""
    while True:
        try:
            return _nonces.pop()
        except IndexError:
            block = os.urandom(_NONCE_BYTES * _NONCES_AT_A_TIME)
            _nonces.extend(
                block[at : at + _NONCE_BYTES] for at in range(0, len(block), _NONCE_BYTES)
            )


def may_be_sealed(value: bytes | None) -> bool:
    """Whether the bytes of an event may contain sealed fields, found without parsing them."""
    return value is not None and _FIELD_IN_JSON in value


def seal_event(wire: dict[str, Any], personal: Collection[str], key: Key) -> None:
    """Replace the personal fields of an event by one sealed field; changes `wire`."""
    fields = {name: wire.pop(name) for name in personal if name in wire}
    if fields:
        sealed = seal(key, orjson.dumps(fields), _place_of_event(wire))
        wire[PERSONAL] = binascii.b2a_base64(sealed, newline=False).decode()


def open_event(wire: dict[str, Any], personal: Collection[str], key: Key | None) -> None:
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


def seal_state(value: bytes, aggregate_id: bytes, key: Key) -> bytes:
    """Seal a record of the state table as a whole."""
    return _SEALED_STATE + seal(key, value, _place(b"state", aggregate_id))


def is_sealed_state(value: bytes | None) -> bool:
    """Whether this record of the state table, or parked command, is sealed."""
    return value is not None and value.startswith(_SEALED_STATE)


def open_state(value: bytes, aggregate_id: bytes, key: Key | None) -> bytes:
    """Open a record of the state table; one that is not sealed is returned unchanged.

    Raises:
        DecryptionError: it is sealed, and `key` is None or another one, or it was changed.
    """
    return _open(value, _place(b"state", aggregate_id), key)


def seal_dead_letter(content: bytes, aggregate_id: bytes, key: Key) -> bytes:
    """Seal the content of a dead letter."""
    return seal(key, content, _place(b"dead letter", aggregate_id))


def open_dead_letter(value: bytes, aggregate_id: bytes, key: Key) -> bytes:
    """Open the content of a dead letter. Raises DecryptionError."""
    return unseal(key, value, _place(b"dead letter", aggregate_id))


def seal_parked(content: bytes, aggregate_id: bytes, offset: int, key: Key) -> bytes:
    """Seal value and headers of a parked command."""
    return _SEALED_STATE + seal(key, content, _place_of_parked(aggregate_id, offset))


def open_parked(content: bytes, aggregate_id: bytes, offset: int, key: Key | None) -> bytes:
    """Open what `seal_parked` returned; what is not sealed is returned unchanged.

    Raises:
        DecryptionError: it is sealed, and `key` is None or another one, or it was changed.
    """
    return _open(content, _place_of_parked(aggregate_id, offset), key)


def _open(value: bytes, place: bytes, key: Key | None) -> bytes:
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
