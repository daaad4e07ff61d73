"""The command worker of a newer program: the state of its users has one more field, in the middle.

It rebuilds a few states per transaction, and has the points of `tests.harness.crash_points`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import msgspec
from faust.types import StreamT

from agents.user_commands import user_command_bus
from agents.users import COMMAND_WORKER, USERS
from models.events import UserEvent
from models.user import User, evolve
from streams.commands import rebuild_state
from streams.commands.wiring import add_aggregate
from streams.settings import settings
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from tests.harness.crash_points import arm


class NewerUser(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State of a user, with the number of its events."""

    email: str
    first_name: str
    events: int
    last_name: str
    registration_source: str
    is_active: bool
    registered_at: datetime
    last_updated: datetime
    erased: bool


def evolve_newer(user: NewerUser | None, event: UserEvent, at: datetime) -> NewerUser:
    """Fold one more event."""
    fields = None if user is None else msgspec.structs.asdict(user)
    events = 0 if fields is None else fields.pop("events")
    evolved = evolve(None if fields is None else User(**fields), event, at)
    return NewerUser(events=events + 1, **msgspec.structs.asdict(evolved))


NEWER_USERS: Any = replace(cast(Any, USERS), state=NewerUser, evolve=evolve_newer, state_version=2)

rebuild_state.MAX_STATES = 20

app = StreamApp(COMMAND_WORKER, settings())
user_commands = add_aggregate(app, NEWER_USERS, user_command_bus)


@app.agent(user_commands)
async def decide_user_commands(chunks: StreamT[Chunk]) -> None:
    """Hand each chunk of commands to its partition."""
    async for chunk in chunks:
        app.partitions.submit(chunk)


arm()
