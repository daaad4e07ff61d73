"""Command bus and query bus: from the type of a message to the one handler that answers it.

In the worker the command bus hands a decoded command to what decides it; at a client the same bus
has a handler that sends to Kafka and waits for the outcome. `dispatch` adds well under a
microsecond: a type look-up and a coroutine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from models.errors import NoCommandHandler, NoQueryHandler
from models.messages import Command

R = TypeVar("R")
C = TypeVar("C", bound=Command)
Q = TypeVar("Q")


class CommandBus(Generic[R]):
    """Dispatches commands; `R` is what every handler answers with, an outcome for instance."""

    def __init__(self) -> None:
        self._handlers: dict[type[Any], Callable[[Any], Awaitable[R]]] = {}

    def register(self, command_type: type[C], handler: Callable[[C], Awaitable[R]]) -> None:
        """Let `handler` answer every command of exactly this type.

        Raises:
            ValueError: The type has a handler already.
        """
        _add(self._handlers, command_type, handler)

    async def dispatch(self, command: Command) -> R:
        """Hand the command to its handler and return the answer.

        Raises:
            NoCommandHandler: `No handler registered for command: X`, X the name of its class.
        """
        handler = self._handlers.get(type(command))
        if handler is None:
            raise NoCommandHandler(type(command).__name__)
        return await handler(command)


class QueryBus:
    """Executes queries. What the answer is belongs to the type of the query."""

    def __init__(self) -> None:
        self._handlers: dict[type[Any], Callable[[Any], Awaitable[Any]]] = {}

    def register(self, query_type: type[Q], handler: Callable[[Q], Awaitable[Any]]) -> None:
        """Let `handler` answer every query of exactly this type.

        Raises:
            ValueError: The type has a handler already.
        """
        _add(self._handlers, query_type, handler)

    async def execute(self, query: object) -> Any:
        """Hand the query to its handler and return the answer.

        Raises:
            NoQueryHandler: `No handler registered for query: X`, X the name of its class.
        """
        handler = self._handlers.get(type(query))
        if handler is None:
            raise NoQueryHandler(type(query).__name__)
        return await handler(query)


def _add(handlers: dict[type[Any], Any], message_type: type[Any], handler: object) -> None:
    if message_type in handlers:
        raise ValueError(f"{message_type.__name__} has a handler already")
    handlers[message_type] = handler
