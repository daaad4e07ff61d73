"""A defect of the program that decides: it fails for some commands, until it is mended.

`TEST_DEFECT` is the share of users, as one in so many, for whom it fails to update a profile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from zlib import crc32

from agents.user_commands import UserCommandHandler
from models.commands import UpdateUserProfile
from models.events import UserEvent
from models.messages import Command

VARIABLE = "TEST_DEFECT"


def break_program(environment: Mapping[str, str] = os.environ) -> None:
    """Make the handler fail after it has decided, if the environment says so."""
    if VARIABLE not in environment:
        return
    one_in = int(environment[VARIABLE])
    handle = UserCommandHandler.handle

    async def fail(self: UserCommandHandler, command: Command) -> Sequence[UserEvent]:
        events = await handle(self, command)
        if isinstance(command, UpdateUserProfile) and is_hit(command.aggregate_id, one_in):
            raise ZeroDivisionError("a defect")
        return events

    UserCommandHandler.handle = fail  # type: ignore[method-assign]


def is_hit(user: str, one_in: int) -> bool:
    """Return whether the defect is about this user."""
    return crc32(user.encode()) % one_in == 0
