import pytest

from models.commands import DeactivateUser, RegisterUser
from models.errors import NoCommandHandler, NoQueryHandler
from models.queries import GetActiveUsers, GetUserById
from streams.buses import CommandBus, QueryBus


async def test_a_command_goes_to_the_handler_of_its_type() -> None:
    bus: CommandBus[str] = CommandBus()

    async def deactivate(command: DeactivateUser) -> str:
        return f"bye {command.aggregate_id}"

    bus.register(DeactivateUser, deactivate)
    assert await bus.dispatch(DeactivateUser(aggregate_id="u-1")) == "bye u-1"


async def test_a_command_without_a_handler_names_its_class() -> None:
    bus: CommandBus[None] = CommandBus()
    command = RegisterUser(
        aggregate_id="u-1",
        email="anna@example.org",
        first_name="Anna",
        last_name="B",
        registration_source="web",
    )
    with pytest.raises(NoCommandHandler) as caught:
        await bus.dispatch(command)
    assert str(caught.value) == "No handler registered for command: RegisterUser"


async def test_a_query_goes_to_the_handler_of_its_type() -> None:
    bus = QueryBus()

    async def by_id(query: GetUserById) -> str:
        return query.user_id.upper()

    bus.register(GetUserById, by_id)
    assert await bus.execute(GetUserById("u-1")) == "U-1"


async def test_a_query_without_a_handler_names_its_class() -> None:
    with pytest.raises(NoQueryHandler) as caught:
        await QueryBus().execute(GetActiveUsers())
    assert str(caught.value) == "No handler registered for query: GetActiveUsers"


async def test_a_type_has_one_handler() -> None:
    async def handler(_: object) -> None: ...

    commands: CommandBus[None] = CommandBus()
    commands.register(DeactivateUser, handler)
    with pytest.raises(ValueError, match="DeactivateUser has a handler already"):
        commands.register(DeactivateUser, handler)
    queries = QueryBus()
    queries.register(GetUserById, handler)
    with pytest.raises(ValueError, match="GetUserById has a handler already"):
        queries.register(GetUserById, handler)


async def test_a_handlers_error_reaches_the_caller() -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("no")

    bus = QueryBus()
    bus.register(GetUserById, broken)
    with pytest.raises(RuntimeError, match="no"):
        await bus.execute(GetUserById("u-1"))
