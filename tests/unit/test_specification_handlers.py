"""One test for each row of the specification about handling commands, named after it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agents.user_commands import UserCommandHandler, user_command_bus
from agents.users import USERS
from models.commands import USER_COMMANDS, RegisterUser, UpdateUserProfile
from models.errors import NoCommandHandler, Rejected
from models.events import UserProfileUpdated
from models.messages import Command, Event
from models.user import User
from streams.buses import CommandBus
from streams.commands.repository import EventSourcedRepository
from streams.state.snapshot import decode_snapshot
from streams.state.store import MemoryStore
from tests.unit.samples import ANNA, register


@pytest.fixture
def stored() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def users(stored: MemoryStore) -> EventSourcedRepository[User]:
    return EventSourcedRepository(USERS, stored)


async def test_command_handler(users: EventSourcedRepository[User]) -> None:
    """`decide` behind a handler registered per command type."""
    bus = user_command_bus(users)
    assert await bus.dispatch(register()) == (ANNA,)
    assert users.load("user-1") is not None


async def test_command_bus() -> None:
    bus = CommandBus[Sequence[Event]]()

    async def handle(command: RegisterUser) -> Sequence[Event]:
        return (ANNA,)

    bus.register(RegisterUser, handle)
    assert await bus.dispatch(register()) == (ANNA,)
    with pytest.raises(
        NoCommandHandler, match="^No handler registered for command: UpdateUserProfile$"
    ):
        await bus.dispatch(UpdateUserProfile(aggregate_id="user-1", first_name="A"))


async def test_user_command_handler(users: EventSourcedRepository[User]) -> None:
    handler = UserCommandHandler(users)

    async def rejection(command: Command) -> str:
        with pytest.raises(Rejected) as rejected:
            await handler.handle(command)
        return rejected.value.reason

    update = UpdateUserProfile(aggregate_id="user-1", first_name="Änne")
    assert await rejection(update) == "User not found"
    assert await handler.handle(register()) == (ANNA,)
    assert await rejection(register()) == "User already exists"
    assert await handler.handle(update) == (UserProfileUpdated(first_name="Änne"),)


def test_event_sourced_repository(users: EventSourcedRepository[User], stored: MemoryStore) -> None:
    """Load is a fold of the events; what is saved is staged until the transaction is committed."""
    assert users.load("user-1") is None
    users.save(register(), [ANNA])
    update = UpdateUserProfile(aggregate_id="user-1", first_name="Änne")
    users.save(update, [UserProfileUpdated(first_name="Änne")])
    user = users.load("user-1")
    assert user is not None
    assert (user.email, user.first_name) == ("Anna@example.org", "Änne")
    assert stored.records == {}

    stored.apply({**users.staged()}, 1)
    users.clear()
    assert users.load("user-1") == user
    assert decode_snapshot(USERS, stored.records[b"user-1"]).version == 2


def test_every_command_has_a_handler(users: EventSourcedRepository[User]) -> None:
    bus = user_command_bus(users)
    assert set(bus._handlers) == set(USER_COMMANDS.values())
