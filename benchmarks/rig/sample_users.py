"""Users who register: their commands and their events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any
from uuid import UUID, uuid5

from msgspec.structs import replace

from deploy.samples.commands import plan
from models.events import UserEvent, UserProfileUpdated, UserRegistered
from models.messages import EventRecord, Source
from models.wire import encode, parse_time

_SOURCE = Source("users.commands.v1", 0, 0)


def registering(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the commands that register `count` new users."""
    # always enough: more than half of all commands register a user
    return islice(
        (
            command
            for command, status in plan(count * 3 + 100, seed)
            if status == "accepted" and command["type"] == "RegisterUser"
        ),
        count,
    )


def registrations(count: int, seed: int) -> Iterator[EventRecord[UserEvent]]:
    """Yield the events of the users of `registering`."""
    for command in registering(count, seed):
        yield EventRecord(
            id=UUID(command["id"]),
            aggregate_id=command["aggregateId"],
            sequence=1,
            timestamp=parse_time(command["timestamp"]),
            command_id=UUID(command["id"]),
            correlation_id=None,
            causation_id=None,
            source=_SOURCE,
            event=UserRegistered(
                command["email"],
                command["firstName"],
                command["lastName"],
                command["registrationSource"],
            ),
        )


def key_and_value(event: EventRecord[UserEvent]) -> tuple[bytes, bytes]:
    """Return the key and the value of an event's record."""
    return event.aggregate_id.encode(), encode(event.to_wire())


def changes(users: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of events that change the names of the first users, without end."""
    registered = list(registrations(users, seed))
    for sequence in count(2):
        for one in registered:
            changed = replace(
                one,
                id=uuid5(one.id, str(sequence)),
                sequence=sequence,
                event=UserProfileUpdated(last_name=f"Number {sequence}"),
            )
            yield key_and_value(changed)
