"""Decoding canonical commands without pydantic, in 0.73 of its time.

A command is canonical if quick checks show that its rules would change no field: nothing to strip,
no zone but UTC, no other spelling. Nearly all are. The others are parsed by pydantic, or refused
with a reason (`parse_command`); a property test checks that both have the same results.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Union, get_args, get_type_hints
from uuid import UUID

import msgspec

from models.email import Email, check_email
from models.messages import SCHEMA_VERSION, Command, Version
from models.validation import MAX_KEY_CHARS, MAX_LINE_CHARS, Key, Line, Time
from models.wire import Whole

_MAX_TIME_CHARS = len("2026-11-23T10:00:00.123456Z")  # a longer one would have to be cut


def _is_key(text: str) -> bool:
    return 0 < len(text) <= MAX_KEY_CHARS and text.isprintable() and text[0] != " " != text[-1]


def _is_line(text: str) -> bool:
    return 0 < len(text) <= MAX_LINE_CHARS and text.isprintable() and text[0] != " " != text[-1]


def _is_time(text: str) -> bool:
    return len(text) <= _MAX_TIME_CHARS and text[-1:] == "Z"


# For each type of field: the type to decode it as, and the check whether it is canonical (it may
# raise ValueError instead). A command with a field of another type is never canonical.
_CANONICAL: Mapping[Any, tuple[Any, Callable[[str], object] | None]] = {
    UUID: (UUID, None),
    Key: (str, _is_key),
    Line: (str, _is_line),
    Email: (str, check_email),
    Time: (str, _is_time),
    Version: (Whole, None),
    Literal[1]: (Literal[1], None),
}


class _Schema(NamedTuple):
    """How canonical commands of one model are decoded."""

    model: type[Command]
    struct: type[msgspec.Struct]
    checks: tuple[tuple[str, Callable[[str], object]], ...]
    """Field names, each with its check."""
    names: set[str]


def _schema_of(name: str, model: type[Command]) -> _Schema | None:
    """Return the schema of commands called `name`; None if a field is never canonical."""
    fields: list[Any] = []
    checks = []
    hints = get_type_hints(model, include_extras=True)
    for field, info in model.model_fields.items():
        hint = hints[field]
        kind = hint if hint in _CANONICAL else next(iter(get_args(hint)), None)  # of `kind | None`
        if kind not in _CANONICAL:
            return None
        decoded, is_canonical = _CANONICAL[kind]
        fields.append((field, decoded) if info.is_required() else (field, decoded | None, None))
        if is_canonical is not None:
            checks.append((field, is_canonical))
    struct = msgspec.defstruct(
        name,
        fields,
        kw_only=True,
        tag=name,
        tag_field="type",
        rename="camel",
        forbid_unknown_fields=True,
    )
    return _Schema(model, struct, tuple(checks), set(model.model_fields))


class CommandDecoder:
    """A decoder of canonical commands of the given types."""

    def __init__(self, types: Mapping[str, type[Command]]) -> None:
        found = [_schema_of(name, model) for name, model in types.items()]
        self._schemas = {one.struct: one for one in found if one is not None}
        structs = Union[tuple(self._schemas)] if self._schemas else None  # noqa: UP007 - of a tuple
        self._decode = msgspec.json.Decoder(structs).decode

    def read(
        self, value: bytes, new_id: Callable[[], UUID], new_time: Callable[[], datetime]
    ) -> Command | None:
        """Return the command in this JSON, or None if it is not a canonical one.

        If its id or time is absent or null, the new one is taken.
        """
        try:
            found: Any = self._decode(value)
            if found is None:
                return None
            fields = msgspec.structs.asdict(found)
            schema = self._schemas[type(found)]
            for name, is_canonical in schema.checks:
                text = fields[name]
                if text is not None and not is_canonical(text):
                    return None
            text = fields["timestamp"]
            fields["timestamp"] = new_time() if text is None else msgspec.convert(text, datetime)
        except (ValueError, RecursionError):  # of msgspec, of UTF-8 that is invalid, or of a check
            return None
        if fields["id"] is None:
            fields["id"] = new_id()
        fields["schema_version"] = SCHEMA_VERSION
        return _construct(schema, fields)


def _construct(schema: _Schema, fields: dict[str, Any]) -> Command:
    """Do what `model_construct` does for all fields, in a seventh of its time."""
    command = schema.model.__new__(schema.model)
    put = object.__setattr__
    put(command, "__dict__", fields)
    put(command, "__pydantic_fields_set__", schema.names)  # shared: commands are frozen
    put(command, "__pydantic_extra__", None)
    put(command, "__pydantic_private__", None)
    return command
