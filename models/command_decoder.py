"""Reading plain commands without pydantic, in half of its time.

A command is plain when every field is already what its rules make of it: nothing to strip, no
other zone than UTC, no other spelling. Nearly all are. Whatever is not plain, pydantic reads, or
says what is wrong with it (`parse_command`); a property test holds both to the same.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Union, get_args, get_type_hints
from uuid import UUID

import msgspec

from models.email import Email, check_email
from models.messages import SCHEMA_VERSION, Command, Version
from models.validation import KEY_LENGTH, LINE_LENGTH, Key, Line, Time
from models.wire import Whole

_TIME_LENGTH = len("2026-11-23T10:00:00.123456Z")  # what is longer would have to be cut


def _is_key(text: str) -> bool:
    return 0 < len(text) <= KEY_LENGTH and text.isprintable() and text[0] != " " != text[-1]


def _is_line(text: str) -> bool:
    return 0 < len(text) <= LINE_LENGTH and text.isprintable() and text[0] != " " != text[-1]


def _is_time(text: str) -> bool:
    return len(text) <= _TIME_LENGTH and text[-1:] == "Z"


# For each type of a field: how it is decoded, and what tells whether it is plain (or raises
# ValueError). A command with a field of another type is never plain.
_PLAIN: Mapping[Any, tuple[Any, Callable[[str], object] | None]] = {
    UUID: (UUID, None),
    Key: (str, _is_key),
    Line: (str, _is_line),
    Email: (str, check_email),
    Time: (str, _is_time),
    Version: (Whole, None),
    Literal[1]: (Literal[1], None),
}


class _Plain(NamedTuple):
    """How the plain commands of a model are read."""

    model: type[Command]
    struct: type[msgspec.Struct]
    checks: tuple[tuple[str, Callable[[str], object]], ...]
    """By the names of the fields."""
    names: set[str]


def _plain(name: str, model: type[Command]) -> _Plain | None:
    """That of the commands called `name`, if all of their fields can be plain."""
    fields: list[Any] = []
    checks = []
    hints = get_type_hints(model, include_extras=True)
    for field, info in model.model_fields.items():
        hint = hints[field]
        kind = hint if hint in _PLAIN else next(iter(get_args(hint)), None)  # of `kind | None`
        if kind not in _PLAIN:
            return None
        decoded, is_plain = _PLAIN[kind]
        fields.append((field, decoded) if info.is_required() else (field, decoded | None, None))
        if is_plain is not None:
            checks.append((field, is_plain))
    struct = msgspec.defstruct(
        name,
        fields,
        kw_only=True,
        tag=name,
        tag_field="type",
        rename="camel",
        forbid_unknown_fields=True,
    )
    return _Plain(model, struct, tuple(checks), set(model.model_fields))


class CommandDecoder:
    """Reads the plain commands of some types."""

    def __init__(self, types: Mapping[str, type[Command]]) -> None:
        found = [_plain(name, model) for name, model in types.items()]
        self._plain = {one.struct: one for one in found if one is not None}
        structs = Union[tuple(self._plain)] if self._plain else None  # noqa: UP007 - made here
        self._decode = msgspec.json.Decoder(structs).decode

    def read(
        self, value: bytes, new_id: Callable[[], UUID], new_time: Callable[[], datetime]
    ) -> Command | None:
        """The command in this JSON, or None if it is no plain one.

        An id or a time that it leaves out, or says is null, is the new one.
        """
        try:
            found: Any = self._decode(value)
            if found is None:
                return None
            fields = msgspec.structs.asdict(found)
            plain = self._plain[type(found)]
            for name, is_plain in plain.checks:
                said = fields[name]
                if said is not None and not is_plain(said):
                    return None
            said = fields["timestamp"]
            fields["timestamp"] = new_time() if said is None else msgspec.convert(said, datetime)
        except ValueError:  # msgspec's own errors, UTF-8 that is none, and what checks raise
            return None
        if fields["id"] is None:
            fields["id"] = new_id()
        fields["schema_version"] = SCHEMA_VERSION
        return _construct(plain, fields)


def _construct(plain: _Plain, fields: dict[str, Any]) -> Command:
    """What `model_construct` gives for all fields, in a seventh of its time."""
    command = plain.model.__new__(plain.model)
    put = object.__setattr__
    put(command, "__dict__", fields)
    put(command, "__pydantic_fields_set__", plain.names)  # shared: commands are frozen
    put(command, "__pydantic_extra__", None)
    put(command, "__pydantic_private__", None)
    return command
