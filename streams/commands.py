"""Reading a record of the command topic: any producer's bytes in, a command or a reason out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from uuid import UUID

import orjson
from murmurhash2 import murmurhash2

from models.errors import Poison
from models.messages import Command, Source, command_id_at, parse_command
from models.plain_commands import PlainCommands
from streams.chunks import Record

# The last millisecond of the year 9999, the end of `datetime`.
_LATEST = 253402300799999

# Bytes. No aggregate id is longer: it has 128 characters (`models/validation.py`).
_LONGEST_KEY = 512

_SEED = 0x9747B28C  # of Kafka's murmur2

# What headers may repeat of the value, by the wire name, and where the command has it.
_REPEATABLE = {
    "id": "id",
    "aggregateId": "aggregate_id",
    "expectedVersion": "expected_version",
    "schemaVersion": "schema_version",
    "correlationId": "correlation_id",
    "causationId": "causation_id",
}


class CommandReader:
    """Reads the commands of some types."""

    def __init__(self, types: Mapping[str, type[Command]]) -> None:
        self._types = types
        self._plain = PlainCommands(types)

    def read(self, record: Record) -> Command:
        """The command in a record.

        A missing ``id`` becomes the uuid5 of topic, partition and offset, a missing ``timestamp``
        the record's, so that reading it again gives the same command.

        Raises:
            Poison: it is no command, contradicts its headers, or its key is not its aggregate id.
        """
        if record.value is None:
            raise Poison("malformed-json", "the record has no value")
        command = self._plain.read(
            record.value, lambda: command_id_at(source_of(record)), lambda: time_of(record)
        ) or self._parse(record, record.value)
        if record.key is None or record.key != command.aggregate_id.encode():
            raise Poison("key-mismatch", "the record's key must be the command's aggregate id")
        if record.headers:
            _check_headers(record, command)
        return command

    def _parse(self, record: Record, value: bytes) -> Command:
        """What is not plain, or no command."""
        try:
            data = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Poison("malformed-json", f"the value is not JSON: {_position(error)}") from None
        if not isinstance(data, dict):
            raise Poison("not-an-object", "the value must be a JSON object")
        if data.get("id") is None:
            data["id"] = command_id_at(source_of(record))
        if data.get("timestamp") is None:
            data["timestamp"] = time_of(record)
        return parse_command(data, self._types)


def identify(record: Record) -> tuple[UUID | None, str | None]:
    """Command id and aggregate id of a record that is no command, as far as they can be read.

    So that whoever waits for the outcome of an invalid command gets it.
    """
    try:
        data = orjson.loads(record.value or b"")
        return UUID(data["id"]), str(Command(aggregate_id=data["aggregateId"]).aggregate_id)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, None


def reply_key(record: Record) -> bytes | None:
    """The key of what is said of a record: its own, but never longer than an aggregate id.

    A compressed record may have a key that no topic takes again.
    """
    return None if record.key is None else record.key[:_LONGEST_KEY]


def time_of(record: Record) -> datetime:
    """The record's timestamp; the nearest time that there is, for one that is none."""
    return _time(record.timestamp)


@lru_cache(maxsize=256)  # those that come one after the other are often of the same millisecond
def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(min(max(milliseconds, 0), _LATEST) / 1000, timezone.utc)


def source_of(record: Record) -> Source:
    """Where the record lies."""
    return Source(record.topic, record.partition, record.offset)


def check_partition(record: Record, partitions: int) -> None:
    """Check that the record lies where its key belongs by murmur2, the partitioner of Kafka.

    Raises:
        Poison: another partition owns the aggregate.
    """
    assert record.key is not None
    partition = partition_of(record.key, partitions)
    if partition != record.partition:
        raise Poison(
            "wrong-partition",
            f"the key belongs to partition {partition}, the record was sent to "
            f"{record.partition}: set the producer's partitioner to murmur2 "
            "(librdkafka: partitioner=murmur2_random)",
        )


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that a key belongs to."""
    return (murmurhash2(key, _SEED) & 0x7FFFFFFF) % partitions


def _check_headers(record: Record, command: Command) -> None:
    for name, value in record.headers:
        attribute = _REPEATABLE.get(name)
        if attribute is not None:
            said = getattr(command, attribute)
            agrees = value == (b"" if said is None else str(said).encode())
        elif name == "type":
            agrees = (
                value is not None
                and value.removesuffix(b"Command") == type(command).__name__.encode()
            )
        else:
            continue  # not one of ours
        if not agrees:
            raise Poison("header-mismatch", f"the header {name} contradicts the value")


def _position(error: orjson.JSONDecodeError) -> str:
    return f"line {error.lineno} column {error.colno}"
