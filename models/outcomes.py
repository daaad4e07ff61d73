"""Outcomes, the replies to commands. Each record of the command topic gets exactly one final one.

The final ones of a command are accepted, rejected, duplicate and dead-lettered. `Parked` comes
before them if the command has to wait (`docs/dead-letters.md`). A control record, which says what
becomes of parked commands, gets `Unparked` if it is obeyed.

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
    """Fields of all of them. A record that could not be read may have no ids."""

    command_id: UUID | None = None
    aggregate_id: str | None = None
    timestamp: Annotated[datetime, Meta(tz=True)]
    source: Source
    correlation_id: str | None = None
    decided_by: int | None = None
    """Offset of the record that ended a parked command, in the partition of the command: its events
    have that record as their source. None if it was decided when it was read."""

    @property
    def decided_at(self) -> int:
        """Offset of the record in whose turn it was decided: its own, unless it was parked."""
        return self.source.offset if self.decided_by is None else self.decided_by


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


class FirstParked(_Status, frozen=True, kw_only=True, tag="parked"):
    """The first reply to a command that came again, if it is `Parked` and still waits."""

    status: ClassVar[Literal["parked"]] = "parked"

    offset: Annotated[int, Meta(ge=0)]
    """Offset of the command that waits, in the partition of this one."""


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

    of: FirstAcceptance | FirstRejection | FirstParked

    @property
    def token(self) -> str | None:
        """Token of the first outcome, if it was accepted."""
        return self.of.token if isinstance(self.of, FirstAcceptance) else None


class Parked(_NotAccepted, frozen=True, kw_only=True, tag="parked"):
    """It waits, and gets its final outcome later; code and reason of the `Poison` in its way.

    `behind` is the number of parked commands of its aggregate before it; 0: it is the one that
    could not be decided.
    """

    status: ClassVar[Literal["parked"]] = "parked"

    behind: Annotated[int, Meta(ge=0)]


class Unparked(_Reply, frozen=True, kw_only=True, tag="unparked"):
    """A control record was obeyed: `ended` parked commands got their final outcomes.

    If any are `left`, code and reason are those of the command that is the first of them.
    """

    status: ClassVar[Literal["unparked"]] = "unparked"

    ended: Annotated[int, Meta(ge=0)]
    left: Annotated[int, Meta(ge=0)]
    code: str | None = None
    reason: str | None = None

    @property
    def token(self) -> None:
        """None: the outcomes of the commands have theirs."""


FinalOutcome = Accepted | Rejection | Duplicate | DeadLettered
Outcome = FinalOutcome | Parked | Unparked

_decode: Any = msgspec.json.Decoder(Outcome).decode


def parse_outcome(value: bytes) -> Outcome:
    """Parse an outcome. Raises Poison for anything that this project does not write."""
    try:
        return _decode(value)  # type: ignore[no-any-return]
    except (ValueError, RecursionError) as error:  # of msgspec, or of UTF-8 that is invalid
        raise Poison("invalid-field", f"no outcome: {error}") from None
