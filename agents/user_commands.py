"""The command agent: decides the commands of users.

Run it with ``faust -A agents.user_commands worker`` or ``cqrs worker commands``.
"""

from __future__ import annotations

from collections.abc import Sequence

from faust.types import StreamT

from agents.users import COMMAND_WORKER, USERS
from models.commands import USER_COMMANDS
from models.events import UserEvent
from models.messages import Command, Event
from models.user import User, decide
from streams.buses import CommandBus
from streams.commands.repository import EventSourcedRepository
from streams.commands.wiring import add_aggregate
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from streams.worker.process import worker_settings


class UserCommandHandler:
    """The handler of all commands: it loads the user, decides, and saves the new events."""

    def __init__(self, users: EventSourcedRepository[User]) -> None:
        self._users = users

    async def handle(self, command: Command) -> Sequence[UserEvent]:
        """Decide the command, and return its events: staged, and not committed yet.

        Raises:
            Rejected: the command is not allowed, for instance ``User already exists``.
        """
        events = decide(self._users.load(command.aggregate_id), command)
        self._users.save(command, events)
        return events


def user_command_bus(users: EventSourcedRepository[User]) -> CommandBus[Sequence[Event]]:
    """Return the worker's command bus, with a handler for every command of users."""
    bus = CommandBus[Sequence[Event]]()
    handler = UserCommandHandler(users)
    for command_type in USER_COMMANDS.values():
        bus.register(command_type, handler.handle)
    return bus


app = StreamApp(COMMAND_WORKER, worker_settings())
user_commands = add_aggregate(app, USERS, user_command_bus)


@app.agent(user_commands)
async def decide_user_commands(chunks: StreamT[Chunk]) -> None:
    """Hand each chunk of commands to its partition."""
    async for chunk in chunks:
        app.partitions.submit(chunk)
