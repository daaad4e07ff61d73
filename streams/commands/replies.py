"""The outcome of a command: one function for each kind of decision.

An outcome carries the timestamp of its command's record: deciding again results in the same bytes.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec.structs import replace

from models.errors import Poison, Rejected
from models.messages import Command, Source, event_id, indexed_event_id
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    FirstAcceptance,
    FirstParked,
    FirstRejection,
    Outcome,
    Parked,
    Rejection,
    Unparked,
)
from models.tokens import token_text
from streams.commands.control import Control
from streams.commands.decider import Obeyed
from streams.commands.reader import identify
from streams.kafka.records import Record, source_of, time_of
from streams.state.parked import Failure, ParkedCommand
from streams.state.snapshot import Remembered, RememberedAcceptance, RememberedRejection


def accepted(
    record: Record,
    source: Source,
    command: Command,
    sequence: int,
    event_ids: tuple[UUID, ...],
    cluster: str,
) -> Accepted:
    """Reply to an accepted command of `source`; `sequence` is that of its last event."""
    # Spelled out, unlike the replies below: `_common` would cost 5% of a command here.
    return Accepted(
        command_id=command.id,
        aggregate_id=command.aggregate_id,
        timestamp=time_of(record),
        source=source,
        correlation_id=command.correlation_id,
        sequence=sequence,
        event_ids=event_ids,
        token=token_text(cluster, source, command.aggregate_id, sequence),
    )


def rejected(record: Record, command: Command, reason: Rejected) -> Rejection:
    """Reply to a command that a rule forbids."""
    return Rejection(**_common(record, command), code=reason.code, reason=reason.reason)


def duplicate(
    record: Record, command: Command, first: Remembered | ParkedCommand, cluster: str
) -> Duplicate:
    """Reply to a command whose id was decided before, or is parked, with the first reply."""
    return Duplicate(**_common(record, command), of=first_reply(record, command, first, cluster))


def parked(record: Record, command: object, failure: Failure, behind: int) -> Parked:
    """Reply to a command that waits; one that could not be read is identified by its record."""
    if isinstance(command, Command):
        common = _common(record, command)
    else:
        common = {"timestamp": time_of(record), "source": source_of(record)}
        common["command_id"], common["aggregate_id"] = identify(record)
    return Parked(
        **common,
        code=failure.code,
        reason=failure.reason,
        behind=behind,
    )


def unparked(record: Record, control: Control, obeyed: Obeyed, ended: int) -> Unparked:
    """Reply to a control record."""
    return Unparked(
        command_id=control.id,
        aggregate_id=control.aggregate_id,
        timestamp=time_of(record),
        source=source_of(record),
        ended=ended,
        left=obeyed.left,
        code=obeyed.code,
        reason=obeyed.reason,
    )


def ended_by(by: Record, reply: Outcome, command: Command, cluster: str) -> Outcome:
    """Return the reply to a command that was parked until the turn of the record `by`."""
    changes: dict[str, Any] = {
        "command_id": command.id,
        "aggregate_id": command.aggregate_id,
        "decided_by": by.offset,
    }
    if isinstance(reply, Accepted):
        changes["token"] = token_text(cluster, source_of(by), command.aggregate_id, reply.sequence)
    return replace(reply, **changes)


def dead_lettered(record: Record, poison: Poison) -> DeadLettered:
    """Reply to a record that is no command, or whose deciding failed.

    If its ids can be read, the reply contains them for the client that waits.
    """
    command_id, aggregate_id = identify(record)
    return DeadLettered(
        command_id=command_id,
        aggregate_id=aggregate_id,
        timestamp=time_of(record),
        source=source_of(record),
        code=poison.code,
        reason=poison.reason,
    )


def first_reply(
    record: Record, command: Command, first: Remembered | ParkedCommand, cluster: str
) -> FirstAcceptance | FirstRejection | FirstParked:
    """Return the first reply to this command's id; both commands are in the same partition."""
    if isinstance(first, ParkedCommand):
        return FirstParked(offset=first.offset)
    if isinstance(first, RememberedRejection):
        return FirstRejection(code=first.code, reason=first.reason)
    source = Source(record.topic, record.partition, first.offset)
    return FirstAcceptance(
        sequence=first.sequence,
        event_ids=event_ids_of(command, first),
        token=token_text(cluster, source, command.aggregate_id, first.sequence),
    )


def event_ids_of(command: Command, acceptance: RememberedAcceptance) -> tuple[UUID, ...]:
    """Return the ids of the command's events; deciding it again returns the same ids."""
    if acceptance.indexed:
        return tuple([indexed_event_id(command.id, index) for index in range(acceptance.events)])
    first = acceptance.sequence - acceptance.events + 1
    return tuple(
        [
            event_id(command.id, command.aggregate_id, sequence)
            for sequence in range(first, acceptance.sequence + 1)
        ]
    )


def _common(record: Record, command: Command) -> dict[str, Any]:
    return {
        "command_id": command.id,
        "aggregate_id": command.aggregate_id,
        "timestamp": time_of(record),
        "source": source_of(record),
        "correlation_id": command.correlation_id,
    }
