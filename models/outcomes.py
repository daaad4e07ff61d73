"""The reply to a command. Each command on the topic gets exactly one of these four.

They carry no personal data: the reasons are fixed sentences, or name a field and a rule. On the
wire (`models/wire.py`) they are objects with a `status` and camelCase names.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from models.errors import Poison
from models.messages import Source


class _Status(msgspec.Struct, frozen=True, tag_field="status", rename="camel", omit_defaults=True):
    status: ClassVar[str]


class _Reply(_Status, frozen=True, kw_only=True):
    """What all four carry. A record that could not be read may have no ids."""

    command_id: UUID | None = None
    aggregate_id: str | None = None
    timestamp: Annotated[datetime, Meta(tz=True)]
    source: Source
    correlation_id: str | None = None


class FirstAcceptance(_Status, frozen=True, kw_only=True, tag="accepted"):
    """What an `Accepted` said to a command that came again."""

    status: ClassVar[Literal["accepted"]] = "accepted"

    sequence: Annotated[int, Meta(ge=1)]
    event_ids: tuple[UUID, ...]
    token: str


class FirstRejection(_Status, frozen=True, kw_only=True, tag="rejected"):
    """What a `Rejection` said to a command that came again."""

    status: ClassVar[Literal["rejected"]] = "rejected"

    code: str
    reason: str


class Accepted(_Reply, frozen=True, kw_only=True, tag="accepted"):
    """It happened. `sequence` is the aggregate's version now, that of the last of the events.

    A query that is given `token` (`models/tokens.py`) sees the write.
    """

    status: ClassVar[Literal["accepted"]] = "accepted"

    sequence: Annotated[int, Meta(ge=1)]
    event_ids: tuple[UUID, ...]
    token: str


class _No(_Reply, frozen=True, kw_only=True):
    code: str
    reason: str

    @property
    def token(self) -> None:
        """There is nothing to wait for."""


class Rejection(_No, frozen=True, kw_only=True, tag="rejected"):
    """A rule forbade it: the code and the text of `Rejected`. Nothing changed."""

    status: ClassVar[Literal["rejected"]] = "rejected"


class DeadLettered(_No, frozen=True, kw_only=True, tag="dead-lettered"):
    """It could not be read or decided: the code and the text of `Poison`."""

    status: ClassVar[Literal["dead-lettered"]] = "dead-lettered"


class Duplicate(_Reply, frozen=True, kw_only=True, tag="duplicate"):
    """The same command id was decided before. This repeats the answer and adds nothing."""

    status: ClassVar[Literal["duplicate"]] = "duplicate"

    of: FirstAcceptance | FirstRejection

    @property
    def token(self) -> str | None:
        """That of the first outcome, if it was accepted."""
        return self.of.token if isinstance(self.of, FirstAcceptance) else None


Outcome = Accepted | Rejection | Duplicate | DeadLettered

_decode: Any = msgspec.json.Decoder(Outcome).decode


def parse_outcome(value: bytes) -> Outcome:
    """An outcome as it was written. Raises Poison for anything that we do not write."""
    try:
        return _decode(value)  # type: ignore[no-any-return]
    except ValueError as error:  # msgspec's own errors, and UTF-8 that is none
        raise Poison("invalid-field", f"no outcome: {error}") from None
