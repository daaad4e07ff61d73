"""The envelopes of commands and events, and how both are read from and written to JSON.

On the wire both are flat objects with camelCase names: `type`, the envelope's fields, and the
fields of that type. Commands come from any producer, so snake_case names are accepted, too.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import sha1
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar
from uuid import UUID, uuid4, uuid5

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from typing_extensions import Self

from models.errors import Poison, PoisonCode, Rejected
from models.validation import Key, Time, explain, show_name
from models.wire import (
    read_object,
    read_optional_text,
    read_text,
    read_time,
    read_uuid,
    read_whole,
)

SCHEMA_VERSION: Final = 1

# Namespace of the ids of commands that came without one. It never changes.
_COMMAND_IDS = UUID("8a2f5bb1-4c1e-5d0c-9a3b-6f1f6f0c8e57")

# Of a version-5 UUID (RFC 9562, 5.5): version and variant, and the bits that come from the hash.
_UUID5_BITS = 0x5 << 76 | 0x2 << 62
_HASHED_BITS = (1 << 128) - 1 - (0xF << 76 | 0x3 << 62)

Version = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]


class Command(BaseModel):
    """A request to change one aggregate.

    Without an id or a time it gets new ones, as in the specification. With `expected_version` it is
    rejected unless the aggregate has that number of events; 0 means "does not exist yet".
    """

    overtakes_parked: ClassVar[bool] = False
    """Whether it is decided at once although earlier commands of its aggregate are parked."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",  # else a typo in the name of an optional field would lose its value
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,  # inputs are personal data, and errors are logged
    )

    id: UUID = Field(default_factory=uuid4)
    aggregate_id: Key
    timestamp: Time = Field(default_factory=lambda: datetime.now(timezone.utc))
    expected_version: Version | None = None
    schema_version: Literal[1] = SCHEMA_VERSION
    correlation_id: Key | None = None
    causation_id: Key | None = None


def parse_command(data: object, types: Mapping[str, type[Command]]) -> Command:
    """Parse a decoded JSON value as one of `types`. A field that is null counts as absent.

    The name of the type may end in `Command`, as in the specification. Callers that read from a log
    fill in `id` and `timestamp` first: their defaults differ on every call.

    Raises:
        Poison: it is not an object, has another type or version, or breaks a rule of its fields.
    """
    if not isinstance(data, Mapping):
        raise Poison("not-an-object", "the value must be a JSON object")
    fields = {name: value for name, value in data.items() if value is not None}
    name = fields.pop("type", None)
    if not isinstance(name, str):
        raise _no_type(name)
    model = types.get(name) or types.get(name.removesuffix("Command"))
    if model is None:
        raise Poison("unknown-type", f"No handler registered for command: {show_name(name)}")
    try:
        return model.__pydantic_validator__.validate_python(fields)  # type: ignore[no-any-return]
    except ValidationError as error:
        code, problems = explain(error, model)
    raise Poison(code, "; ".join(problems))


def aggregate_id_in(data: Mapping[str, Any]) -> str:
    """Return the aggregate id in a decoded command of any type, in either spelling.

    Raises:
        ValueError: it has none, it is given in both spellings, or it is not valid.
    """
    given = {name: data.get(name) for name in ("aggregateId", "aggregate_id")}
    fields = {name: value for name, value in given.items() if value is not None}
    return Command.model_validate(fields).aggregate_id


def to_wire(command: Command) -> dict[str, Any]:
    """Return the command as a JSON-ready object, without fields that are None."""
    return {"type": type(command).__name__, **command.model_dump(mode="json", exclude_none=True)}


def check_expected_version(command: Command, version: int) -> None:
    """Check that the aggregate has the version that the command expects, if it expects one.

    Raises:
        Rejected: it has another version.
    """
    if command.expected_version is not None and command.expected_version != version:
        raise Rejected(
            "version-mismatch",
            f"Expected version {command.expected_version}, but the version is {version}",
        )


class Source(msgspec.Struct, frozen=True, gc=False):
    """Place on the log of the command that caused an event or an outcome."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> "Source":
        """Return the source with these fields. Raises Poison."""
        return cls(
            read_text(data, "topic"),
            read_whole(data, "partition", least=0),
            read_whole(data, "offset", least=0),
        )


def command_id_at(source: Source) -> UUID:
    """Return the id of a command that came without one: the same whenever its record is read."""
    return uuid5(_COMMAND_IDS, f"{source.topic}/{source.partition}/{source.offset}")


def event_id(command_id: UUID, aggregate_id: str, sequence: int) -> UUID:
    """Return the id of an event: no other event has it, and deciding again results in the same id.

    It is the version-5 UUID of `<aggregate id>/<sequence>` in the namespace of the command's id.
    The command's id alone is not enough: a producer may use one for several aggregates, or again
    when it is no longer remembered.
    """
    return _uuid5(command_id, f"{aggregate_id}/{sequence}".encode())


def indexed_event_id(command_id: UUID, index: int) -> UUID:
    """Return the id that older programs gave to the command's event at `index`, from 0."""
    return _uuid5(command_id, b"%d" % index)


def _uuid5(namespace: UUID, name: bytes) -> UUID:
    """Return a version-5 UUID, in half of the time of `uuid.uuid5`."""
    digest = sha1(namespace.int.to_bytes(16, "big") + name, usedforsecurity=False).digest()
    number = int.from_bytes(digest[:16], "big") & _HASHED_BITS | _UUID5_BITS
    return msgspec.convert(number.to_bytes(16, "big"), UUID)


class Event(Protocol):
    """What happened to one aggregate: domain fields only; the class names the type.

    Its classes derive from `EventBase`, or from `WithoutPersonalData`, which does the rest.
    """

    personal: ClassVar[tuple[str, ...]]
    """Names on the wire of the fields that are personal data.

    They are strings that are never empty: read without its key, a personal field is the empty one.
    """
    erases: ClassVar[bool]
    """Whether it ends its aggregate and erases the personal data of all events before it."""

    @property
    def is_shredded(self) -> bool:
        """Whether its personal fields were read without their key."""

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Return the event with these fields; unknown ones are ignored. Raises Poison."""


class EventBase(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of events: how they are written."""


class WithoutPersonalData(EventBase, frozen=True):
    """Base of events without personal data; those of an aggregate of your own, for instance."""

    personal: ClassVar[tuple[str, ...]] = ()
    erases: ClassVar[bool] = False

    @property
    def is_shredded(self) -> bool:
        """Always False: there is nothing to shred."""
        return False

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Return the event with these fields; unknown ones are ignored. Raises Poison."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            code: PoisonCode = "missing-field" if "missing" in str(error) else "invalid-field"
            raise Poison(code, str(error)) from None


E_co = TypeVar("E_co", bound=Event, covariant=True)
E = TypeVar("E", bound=Event)


class EventRecord(msgspec.Struct, Generic[E_co], frozen=True, kw_only=True):
    """An event in its envelope. `sequence` counts the events of its aggregate: 1, 2, 3 ..."""

    id: UUID
    aggregate_id: str
    sequence: int
    timestamp: datetime
    command_id: UUID
    correlation_id: str | None
    causation_id: str | None
    source: Source
    event: E_co
    offset: int = -1
    """Its offset on the event topic; -1 if it was not read from there."""

    @property
    def type(self) -> str:
        """Name of the event's type on the wire."""
        return type(self.event).__name__

    def to_wire(self) -> dict[str, Any]:
        """Return the flat object for `encode`: envelope and event, without what is not set."""
        data = {
            "type": type(self.event).__name__,
            "schemaVersion": SCHEMA_VERSION,
            "id": self.id,
            "aggregateId": self.aggregate_id,
            "sequence": self.sequence,
            "timestamp": self.timestamp,
            "commandId": self.command_id,
            "source": self.source,
        }
        if self.correlation_id is not None:
            data["correlationId"] = self.correlation_id
        if self.causation_id is not None:
            data["causationId"] = self.causation_id
        data.update(msgspec.to_builtins(self.event))
        return data


def parse_event(data: object, types: Mapping[str, type[E]], *, offset: int = -1) -> EventRecord[E]:
    """Parse a decoded JSON value as an event of one of `types`, read at this offset.

    Raises:
        Poison: it is not an object, has another type or version, or a field that is not valid.
    """
    if not isinstance(data, Mapping):
        raise Poison("not-an-object", "the value must be a JSON object")
    name = data.get("type")
    if not isinstance(name, str):
        raise _no_type(name)
    event_type = types.get(name)
    if event_type is None:
        raise Poison("unknown-type", f"type: {show_name(name)} is not an event that is known here")
    if read_whole(data, "schemaVersion", least=1) != SCHEMA_VERSION:
        raise Poison("unknown-version", f"schemaVersion: must be {SCHEMA_VERSION}")
    return EventRecord(
        id=read_uuid(data, "id"),
        aggregate_id=read_text(data, "aggregateId"),
        sequence=read_whole(data, "sequence", least=1),
        timestamp=read_time(data, "timestamp"),
        command_id=read_uuid(data, "commandId"),
        correlation_id=read_optional_text(data, "correlationId"),
        causation_id=read_optional_text(data, "causationId"),
        source=Source.from_wire(read_object(data, "source")),
        event=event_type.from_wire(data),
        offset=offset,
    )


def _no_type(name: object) -> Poison:
    if name is None:
        return Poison("missing-field", "type: is missing")
    return Poison("invalid-field", "type: must be a string")
