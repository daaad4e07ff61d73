"""Reading a record of the command topic: any producer's bytes in, a command or a reason out."""

from __future__ import annotations

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from models.command_decoder import CommandDecoder
from models.errors import Poison
from models.messages import Command, aggregate_id_in, command_id_at, parse_command
from streams.kafka.records import Record, source_of, time_of
from streams.kafka.topics import COMMAND_BYTES

# Fields that headers may repeat: wire name -> attribute of the command.
REPEATABLE = {
    "id": "id",
    "aggregateId": "aggregate_id",
    "expectedVersion": "expected_version",
    "schemaVersion": "schema_version",
    "correlationId": "correlation_id",
    "causationId": "causation_id",
}


class CommandReader:
    """A reader of commands of the given types."""

    def __init__(self, types: Mapping[str, type[Command]]) -> None:
        self._types = types
        self._canonical = CommandDecoder(types)

    def read(self, record: Record) -> Command:
        """Return the command in a record.

        A missing ``id`` becomes the uuid5 of topic, partition and offset, a missing ``timestamp``
        that of the record, so that reading it again returns the same command.

        Raises:
            Poison: it is no command, contradicts its headers, or its key is not its aggregate id.
        """
        if record.value is None:
            raise record.unreadable or Poison("malformed-json", "the record has no value")
        if len(record.value) > COMMAND_BYTES:
            raise Poison("oversized", f"the value has more than {COMMAND_BYTES:,} bytes")
        command = self._canonical.read(
            record.value, lambda: command_id_at(source_of(record)), lambda: time_of(record)
        ) or self._parse(record, record.value)
        if record.key is None or record.key != command.aggregate_id.encode():
            raise Poison("key-mismatch", "the record's key must be the command's aggregate id")
        if record.headers:
            _check_headers(record, command)
        return command

    def _parse(self, record: Record, value: bytes) -> Command:
        """Parse a command that is not canonical. Raises Poison if it is none."""
        try:
            data = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            reason = f"the value is not JSON: {_mistake(value, error)}"
            raise Poison("malformed-json", reason) from None
        if not isinstance(data, dict):
            raise Poison("not-an-object", "the value must be a JSON object")
        if data.get("id") is None:
            data["id"] = command_id_at(source_of(record))
        if data.get("timestamp") is None:
            data["timestamp"] = time_of(record)
        return parse_command(data, self._types)


def json_in(record: Record) -> Any:
    """Return what is in the value of a record of the command topic.

    A value that was small when compressed can be larger than any command. It is not read: of the
    smallest possible lists, JSON takes thirty times its bytes in memory.

    Raises:
        ValueError: it is no JSON, or larger than a command can be.
    """
    if record.value is None or len(record.value) > COMMAND_BYTES:
        raise ValueError("no value, or one that is too large")
    return orjson.loads(record.value)


def command_id_in(record: Record) -> UUID | None:
    """Return the command id in a record's value; None if it has none or cannot be read."""
    try:
        return UUID(json_in(record)["id"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def command_type_in(record: Record) -> str | None:
    """Return the type in a record's value; None if it has none or cannot be read."""
    try:
        return str(json_in(record)["type"])
    except (ValueError, TypeError, KeyError):
        return None


def identify(record: Record) -> tuple[UUID | None, str | None]:
    """Return command id and aggregate id of a record that is no command, or None for both.

    With them, a client that waits for the outcome of an invalid command receives it.
    """
    try:
        data = json_in(record)
        return UUID(data["id"]), aggregate_id_in(data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, None


def _check_headers(record: Record, command: Command) -> None:
    for name, value in record.headers:
        attribute = REPEATABLE.get(name)
        if attribute is not None:
            agrees = _is_written(value, getattr(command, attribute))
        elif name == "type":
            agrees = (
                value is not None
                and value.removesuffix(b"Command") == type(command).__name__.encode()
            )
        else:
            continue  # it repeats no field
        if not agrees:
            raise Poison("header-mismatch", f"the header {name} contradicts the value")


def _is_written(value: bytes | None, field: UUID | int | str | None) -> bool:
    """Return whether a header's value is this field, in any of the ways to write its type."""
    if field is None or not value:
        return field is None and not value
    try:
        return type(field)(value.decode()) == field
    except ValueError:
        return False


def _mistake(value: bytes, error: orjson.JSONDecodeError) -> str:
    """Name the common mistake of a producer that explains the value, or the place of the error."""
    if value.startswith(BOM_UTF8):
        return "it begins with a byte order mark; send UTF-8 without one"
    if value[:2] in (BOM_UTF16_LE, BOM_UTF16_BE, b"{\0", b"\0{"):
        return "it is UTF-16; send UTF-8"
    if value.startswith(b"\0"):
        return "it begins with the bytes of a schema registry's serializer; send plain JSON"
    try:
        value.decode()
    except UnicodeDecodeError as not_utf8:
        return f"byte {not_utf8.start} is not UTF-8"
    return f"line {error.lineno} column {error.colno}"
