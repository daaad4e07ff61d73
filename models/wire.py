"""How single values are written on the wire, and how fields of our own records are read back.

Times are UTC and ISO 8601, with microseconds if the second is not a whole one, and end in `Z`.
Commands come from any producer and are parsed by pydantic (`messages.py`). Events are written by
this project: the readers below check types and little more, and take well under a microsecond each.
A field that does not fit raises Poison.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Annotated, Any
from uuid import UUID

import msgspec

from models.errors import Poison

Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A whole number from 0, as msgspec checks it."""

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""Encode objects, structs, times and UUIDs as JSON. A lone surrogate raises ValueError."""


def parse_time(text: str) -> datetime:
    """Parse a time in UTC, in any form of RFC 3339. Raises ValueError for anything else."""
    at = msgspec.convert(text, datetime)
    if at.tzinfo is not timezone.utc:
        raise ValueError("a time is in UTC")
    return at


def read_text(data: Mapping[str, Any], name: str) -> str:
    """Return a field that has to be a string."""
    value = data.get(name)
    if type(value) is not str:
        raise _unreadable(value, name, "a string")
    return value


def read_optional_text(data: Mapping[str, Any], name: str) -> str | None:
    """Return a field that has to be a string; None if it is absent or null."""
    return None if data.get(name) is None else read_text(data, name)


def read_whole(data: Mapping[str, Any], name: str, least: int) -> int:
    """Return a field that has to be a whole number of at least `least`."""
    value = data.get(name)
    if type(value) is not int or value < least:
        raise _unreadable(value, name, f"a whole number from {least}")
    return value


def read_uuid(data: Mapping[str, Any], name: str) -> UUID:
    """Return a field that has to be a UUID."""
    value = data.get(name)
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise _unreadable(value, name, "a UUID") from None


def read_time(data: Mapping[str, Any], name: str) -> datetime:
    """Return a field that has to be a time in UTC, as `encode` writes it."""
    value = data.get(name)
    try:
        return parse_time(value)  # type: ignore[arg-type]  # anything but a string ends below
    except ValueError:
        raise _unreadable(value, name, "a time in UTC, as 2026-11-23T10:00:00.123Z") from None


def read_object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a field that has to be a JSON object."""
    value = data.get(name)
    if not isinstance(value, Mapping):
        raise _unreadable(value, name, "an object")
    return value


def _unreadable(value: object, name: str, rule: str) -> Poison:
    """Return an error with the field and the rule, never the value, which may be personal data."""
    if value is None:
        return Poison("missing-field", f"{name}: is missing")
    return Poison("invalid-field", f"{name}: must be {rule}")
