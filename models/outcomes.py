"""The reply to a command. Each command on the topic gets exactly one of these four.

They carry no personal data: the reasons are fixed sentences, or name a field and a rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from models.errors import Poison
from models.messages import Source
from models.wire import (
    format_time,
    read_object,
    read_optional_text,
    read_text,
    read_time,
    read_uuid,
    read_whole,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What all four carry. A record that could not be read may have no ids."""

    status: ClassVar[str]

    command_id: UUID | None
    aggregate_id: str | None
    timestamp: datetime
    source: Source
    correlation_id: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """A JSON-ready object. What is not set is left out."""
        data: dict[str, Any] = {
            "status": self.status,
            "timestamp": format_time(self.timestamp),
            "source": self.source.to_wire(),
        }
        if self.command_id is not None:
            data["commandId"] = str(self.command_id)
        if self.aggregate_id is not None:
            data["aggregateId"] = self.aggregate_id
        if self.correlation_id is not None:
            data["correlationId"] = self.correlation_id
        data.update(self._said())
        return data

    def _said(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(_Reply):
    """It happened. `sequence` is the aggregate's version now, that of the last of the events.

    A query that is given `token` (`models/tokens.py`) sees the write.
    """

    status: ClassVar[Literal["accepted"]] = "accepted"

    sequence: int
    event_ids: tuple[UUID, ...]
    token: str

    def _said(self) -> dict[str, Any]:
        return _acceptance(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection(_Reply):
    """A rule forbade it: the code and the text of `Rejected`. Nothing changed."""

    status: ClassVar[Literal["rejected"]] = "rejected"
    token: ClassVar[None] = None

    code: str
    reason: str

    def _said(self) -> dict[str, Any]:
        return {"code": self.code, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAcceptance:
    """What an `Accepted` said to a command that came again."""

    sequence: int
    event_ids: tuple[UUID, ...]
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRejection:
    """What a `Rejection` said to a command that came again."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(_Reply):
    """The same command id was decided before. This repeats the answer and adds nothing."""

    status: ClassVar[Literal["duplicate"]] = "duplicate"

    of: FirstAcceptance | FirstRejection

    @property
    def token(self) -> str | None:
        """That of the first outcome, if it was accepted."""
        return self.of.token if isinstance(self.of, FirstAcceptance) else None

    def _said(self) -> dict[str, Any]:
        if isinstance(self.of, FirstAcceptance):
            first = {"status": Accepted.status, **_acceptance(self.of)}
        else:
            first = {"status": Rejection.status, "code": self.of.code, "reason": self.of.reason}
        return {"of": first}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(_Reply):
    """It could not be read or decided: the code and the text of `Poison`."""

    status: ClassVar[Literal["dead-lettered"]] = "dead-lettered"
    token: ClassVar[None] = None

    code: str
    reason: str

    def _said(self) -> dict[str, Any]:
        return {"code": self.code, "reason": self.reason}


Outcome = Accepted | Rejection | Duplicate | DeadLettered


def parse_outcome(data: Mapping[str, Any]) -> Outcome:
    """The inverse of `to_wire`. Raises Poison for anything that we do not write."""
    common: dict[str, Any] = {
        "command_id": None if data.get("commandId") is None else read_uuid(data, "commandId"),
        "aggregate_id": read_optional_text(data, "aggregateId"),
        "timestamp": read_time(data, "timestamp"),
        "source": Source.from_wire(read_object(data, "source")),
        "correlation_id": read_optional_text(data, "correlationId"),
    }
    status = read_text(data, "status")
    if status == Accepted.status:
        return Accepted(**common, **_read_acceptance(data))
    if status == Rejection.status:
        return Rejection(**common, **_read_no(data))
    if status == Duplicate.status:
        return Duplicate(**common, of=_read_first(read_object(data, "of")))
    if status == DeadLettered.status:
        return DeadLettered(**common, **_read_no(data))
    raise Poison("unknown-type", "status: is no outcome known here")


def _acceptance(said: Accepted | FirstAcceptance) -> dict[str, Any]:
    return {
        "sequence": said.sequence,
        "eventIds": [str(id_) for id_ in said.event_ids],
        "token": said.token,
    }


def _read_acceptance(data: Mapping[str, Any]) -> dict[str, Any]:
    ids = data.get("eventIds")
    if not isinstance(ids, list):
        raise Poison("invalid-field", "eventIds: must be a list of UUIDs")
    return {
        "sequence": read_whole(data, "sequence", least=1),
        "event_ids": tuple(read_uuid({"eventIds": id_}, "eventIds") for id_ in ids),
        "token": read_text(data, "token"),
    }


def _read_no(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": read_text(data, "code"), "reason": read_text(data, "reason")}


def _read_first(data: Mapping[str, Any]) -> FirstAcceptance | FirstRejection:
    status = read_text(data, "status")
    if status == Accepted.status:
        return FirstAcceptance(**_read_acceptance(data))
    if status == Rejection.status:
        return FirstRejection(**_read_no(data))
    raise Poison("unknown-type", "of.status: is no outcome that comes first")
