from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from models.commands import DeactivateUser, RegisterUser
from models.errors import InvalidToken, NoCommandHandler, NoQueryHandler, QueryError
from models.queries import GetActiveUsers, GetUserById
from models.tokens import Point, Token, token_text
from streams.buses import CommandBus, QueryBus
from tests.unit.samples import SOURCE


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


TOKEN = Token.parse(token_text("cluster", SOURCE, "u-1", 4))


def waiting_bus() -> tuple[QueryBus, list[tuple[Token, float]]]:
    """A bus whose `GetUserById` waits, and what it was told to wait for."""
    waited: list[tuple[Token, float]] = []

    async def wait(token: Token, timeout: float, answer: Callable[[], Awaitable[Any]], /) -> Any:
        waited.append((token, timeout))
        return await answer()

    async def by_id(query: GetUserById) -> str:
        return query.user_id.upper()

    bus = QueryBus()
    bus.register(GetUserById, by_id, after=wait)
    return bus, waited


@pytest.mark.parametrize("at_least", [TOKEN, str(TOKEN), [TOKEN], (str(TOKEN), TOKEN), {TOKEN}])
async def test_a_query_waits_for_a_token(at_least: Any) -> None:
    bus, waited = waiting_bus()
    assert await bus.execute(GetUserById("u-1"), at_least=at_least, timeout=3) == "U-1"
    assert waited == [(TOKEN, 3)]


async def test_several_tokens_are_waited_for_as_one() -> None:
    bus, waited = waiting_bus()
    other = Token("cluster", (Point("users.commands.v1", 1, 7, "u-2", 1),))
    await bus.execute(GetUserById("u-1"), at_least=[str(TOKEN), other])
    assert waited == [(TOKEN | other, 10)]


@pytest.mark.parametrize("at_least", [None, (), []])
async def test_without_a_token_nothing_is_waited_for(at_least: Any) -> None:
    bus, waited = waiting_bus()
    assert await bus.execute(GetUserById("u-1"), at_least=at_least, timeout=0) == "U-1"
    assert waited == []


@pytest.mark.parametrize("at_least", ["", "forged", [""], [None], [TOKEN, "forged"]])
async def test_a_forged_token_is_an_error(at_least: Any) -> None:
    bus, waited = waiting_bus()
    with pytest.raises(InvalidToken, match="invalid token"):
        await bus.execute(GetUserById("u-1"), at_least=at_least)
    assert waited == []


@pytest.mark.parametrize("timeout", [0, -1, 3601, float("inf"), float("nan")])
async def test_a_time_out_of_bounds_is_an_error(timeout: float) -> None:
    bus, _ = waiting_bus()
    with pytest.raises(QueryError, match="timeout must be a number of seconds above 0, to 3600"):
        await bus.execute(GetUserById("u-1"), at_least=TOKEN, timeout=timeout)


async def test_a_query_that_cannot_wait_takes_no_token() -> None:
    async def active(query: GetActiveUsers) -> str:
        return "all"

    bus = QueryBus()
    bus.register(GetActiveUsers, active)
    assert await bus.execute(GetActiveUsers()) == "all"
    with pytest.raises(QueryError, match="GetActiveUsers is answered at once: give it no token"):
        await bus.execute(GetActiveUsers(), at_least=TOKEN)
