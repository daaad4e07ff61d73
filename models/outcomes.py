"""Outcomes, the replies to commands. Each record of the command topic gets exactly one of four.

They contain no personal data: the reasons are fixed sentences, or name a field and a rule. On the
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
    """Fields of all four. A record that could not be read may have no ids."""

    command_id: UUID | None = None
    aggregate_id: str | None = None
    timestamp: Annotated[datetime, Meta(tz=True)]
    source: Source
    correlation_id: str | None = None


class FirstAcceptance(_Status, frozen=True, kw_only=True, tag="accepted"):
    """The first reply to a command that came again, if it was `Accepted`."""

    status: ClassVar[Literal["accepted"]] = "accepted"

    sequence: Annotated[int, Meta(ge=1)]
    event_ids: tuple[UUID, ...]
    token: str


class FirstRejection(_Status, frozen=True, kw_only=True, tag="rejected"):
    """The first reply to a command that came again, if it was a `Rejection`."""

    status: ClassVar[Literal["rejected"]] = "rejected"

    code: str
    reason: str


class Accepted(_Reply, frozen=True, kw_only=True, tag="accepted"):
    """The command was accepted. `sequence` is that of its last event: the aggregate's version.

    A query that is given `token` (`models/tokens.py`) sees the write.
    """

    status: ClassVar[Literal["accepted"]] = "accepted"

    sequence: Annotated[int, Meta(ge=1)]
    event_ids: tuple[UUID, ...]
    token: str


class _NotAccepted(_Reply, frozen=True, kw_only=True):
    code: str
    reason: str

    @property
    def token(self) -> None:
        """None: there is no write to wait for."""


class Rejection(_NotAccepted, frozen=True, kw_only=True, tag="rejected"):
    """A rule forbade it; code and reason of `Rejected`. Nothing changed."""

    status: ClassVar[Literal["rejected"]] = "rejected"


class DeadLettered(_NotAccepted, frozen=True, kw_only=True, tag="dead-lettered"):
    """It could not be read or decided; code and reason of `Poison`."""

    status: ClassVar[Literal["dead-lettered"]] = "dead-lettered"


class Duplicate(_Reply, frozen=True, kw_only=True, tag="duplicate"):
    """The same command id was decided before. This repeats the first reply and changes nothing."""

    status: ClassVar[Literal["duplicate"]] = "duplicate"

    of: FirstAcceptance | FirstRejection

    @property
    def token(self) -> str | None:
        """Token of the first outcome, if it was accepted."""
        return self.of.token if isinstance(self.of, FirstAcceptance) else None


Outcome = Accepted | Rejection | Duplicate | DeadLettered

_decode: Any = msgspec.json.Decoder(Outcome).decode


def parse_outcome(value: bytes) -> Outcome:
    """Parse an outcome. Raises Poison for anything that this project does not write."""
    try:
        return _decode(value)  # type: ignore[no-any-return]
    except (ValueError, RecursionError) as error:  # of msgspec, or of UTF-8 that is invalid
        raise Poison("invalid-field", f"no outcome: {error}") from None
