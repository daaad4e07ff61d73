"""Records on the command topic that are no valid command, each made from a valid one.

Every kind must become a dead letter with the code that it names. The command that it was made from,
and all others of the same user, must be decided as if it did not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import PoisonCode

Command = Mapping[str, Any]

_MIB = 1024 * 1024


class Poisoned(NamedTuple):
    """A record to send. If `astray`, it must go to the partition after that of its key."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    astray: bool = False


class Kind(NamedTuple):
    """Kind of poison: `spoil` makes it from a command, `code` is the code of its dead letter."""

    code: PoisonCode
    spoil: Callable[[Command], Poisoned]


def _raw(code: PoisonCode, spoil: Callable[[bytes], bytes | None]) -> Kind:
    """Replace the command's JSON by other bytes."""
    return Kind(code, lambda good: Poisoned(_key(good), spoil(_encode(good))))


def _with(code: PoisonCode, **fields: Any) -> Kind:
    """Change or add fields; None removes one."""

    def spoil(good: Command) -> Poisoned:
        changed = {name: value for name, value in {**good, **fields}.items() if value is not None}
        return Poisoned(_key(good), _encode(changed))

    return Kind(code, spoil)


def _keyed(code: PoisonCode, key: Callable[[bytes], bytes | None]) -> Kind:
    """Change the key."""
    return Kind(code, lambda good: Poisoned(key(_key(good)), _encode(good)))


def _with_id(aggregate_id: str) -> Kind:
    """Use an aggregate id that is not allowed, in the value and as the key."""

    def spoil(good: Command) -> Poisoned:
        return Poisoned(aggregate_id.encode(), _encode({**good, "aggregateId": aggregate_id}))

    return Kind("invalid-field", spoil)


def _with_headers(*headers: tuple[str, bytes | None]) -> Kind:
    """Add headers that contradict the value."""
    return Kind("header-mismatch", lambda good: Poisoned(_key(good), _encode(good), headers))


def _key(good: Command) -> bytes:
    return str(good["aggregateId"]).encode()


def _encode(value: object) -> bytes:
    return json.dumps(value).encode()


def _nested(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


COMMON_KINDS: Mapping[str, Kind] = {
    "cut off": _raw("malformed-json", lambda value: value[:-7]),
    "a list": _raw("not-an-object", lambda value: b"[%b]" % value),
    "an unknown type": _with("unknown-type", type="PromoteUser"),
    "a field missing": _with("missing-field", type="RegisterUser", email=None),
    "no address": _with("invalid-field", email="not an address"),
    "another schema version": _with("unknown-version", schemaVersion=99),
    "a time without a zone": _with("invalid-field", timestamp="2026-01-01T10:00:00"),
    "another key": _keyed("key-mismatch", lambda key: b"not-" + key),
}
"""The most common kinds: wrong in key or value alone."""

KINDS: Mapping[str, Kind] = {
    **COMMON_KINDS,
    # no JSON
    "no value": _raw("malformed-json", lambda _: None),
    "nothing": _raw("malformed-json", lambda _: b""),
    "no UTF-8": _raw("malformed-json", lambda value: value.replace(b'{"', b'{"\xff":1,"', 1)),
    "UTF-16": _raw("malformed-json", lambda value: value.decode().encode("utf-16")),
    "a byte order mark": _raw("malformed-json", lambda value: b"\xef\xbb\xbf" + value),
    "half a character": _raw("malformed-json", lambda value: b'{"\\ud800":1,' + value[1:]),
    "two values": _raw("malformed-json", lambda value: value + value),
    "binary": _raw("malformed-json", lambda value: b"\x00\x01\x02\x00" + value),
    "NaN": _with("malformed-json", expectedVersion=float("nan")),
    "nested too deep": _raw("malformed-json", lambda _: b"[" * 100_000),
    # no command
    "a number": _raw("not-an-object", lambda _: b"42"),
    "null": _raw("not-an-object", lambda _: b"null"),
    "no type": _with("missing-field", type=None),
    "a type that is none": _with("invalid-field", type=["RegisterUser"]),
    "a class of Python": _with("unknown-type", type="__class__"),
    "nested": _with("invalid-field", firstName=_nested(500)),
    "a thousand fields": _with("invalid-field", **{f"field{n}": n for n in range(1000)}),
    "both spellings": _with("invalid-field", aggregate_id="another"),
    "a field twice": _raw("key-mismatch", lambda value: value[:-1] + b',"aggregateId":"another"}'),
    "an id that is none": _with("invalid-field", id="42"),
    "a huge number": _with("invalid-field", expectedVersion=10**300),
    "beyond 64 bits": _with("invalid-field", expectedVersion=2**64),
    "below zero": _with("invalid-field", expectedVersion=-1),
    "a truth for a number": _with("invalid-field", expectedVersion=True),
    "a year that is none": _with("invalid-field", timestamp="99999-01-01T00:00:00Z"),
    "a control character": _with("invalid-field", correlationId="a\x00b"),
    # the wrong key
    "no key": _keyed("key-mismatch", lambda _: None),
    "an empty key": _keyed("key-mismatch", lambda _: b""),
    "a key in no UTF-8": _keyed("key-mismatch", lambda key: b"\xff" + key),
    "no id": _with_id(""),
    "too long an id": _with_id("u" * 129),
    "a key of the state table": _with_id("\x00position users.commands.v1 0"),
    # the wrong headers
    "another type": _with_headers(("type", b"PromoteUserCommand")),
    "another user": _with_headers(("aggregateId", b"another")),
    "another id": _with_headers(("id", b"7f0b4c7e-0000-4000-8000-000000000000")),
    "a version": _with_headers(("expectedVersion", b"\xff")),
    "a header without a value": _with_headers(("trace", None), ("type", None)),
    # the wrong partition
    "astray": Kind("wrong-partition", lambda good: Poisoned(_key(good), _encode(good), (), True)),
}
"""All kinds that are not larger than a command may be."""

GIANTS: Mapping[str, Kind] = {
    "a giant value": _raw("oversized", lambda _: b" " * (6 * _MIB) + b'{"type":"PromoteUser"}'),
    "a giant key": _keyed("key-mismatch", lambda key: key + b"k" * (6 * _MIB)),
    "a giant header": _with_headers(("type", b"x" * (6 * _MIB))),
}
"""Kinds that are too large for a dead letter to contain all of it: small only when compressed."""
