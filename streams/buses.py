"""Command bus and query bus: each type of message has one handler.

In a worker, the command bus passes a decoded command to the handler that decides it. In a client,
the handler sends the command to Kafka and waits for its outcome. `dispatch` adds well under a
microsecond: a look-up of the type and a coroutine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from models.errors import NoCommandHandler, NoQueryHandler, QueryError
from models.messages import Command
from models.tokens import Token, join

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
C = TypeVar("C", bound=Command)
C_contra = TypeVar("C_contra", bound=Command, contravariant=True)
Q = TypeVar("Q")
Q_contra = TypeVar("Q_contra", contravariant=True)
T = TypeVar("T")

# How long a query with a token waits by default, and at most.
DEFAULT_WAIT_S = 10.0
_MAX_WAIT_S = 3600.0


class CommandHandler(Protocol[C_contra, R_co]):
    """Handler of commands of one type, or of several: a function or a bound method."""

    def __call__(self, command: C_contra, /) -> Awaitable[R_co]:
        """Handle the command. Errors reach the caller of `CommandBus.dispatch`."""


class QueryHandler(Protocol[Q_contra]):
    """Handler of queries of one type, or of several: a function or a bound method."""

    def __call__(self, query: Q_contra, /) -> Awaitable[Any]:
        """Return the result of the query. Errors reach the caller of `QueryBus.execute`."""


class CommandBus(Generic[R]):
    """Bus for commands; `R` is what every handler returns, an outcome for instance."""

    def __init__(self) -> None:
        self._handlers: dict[type[Any], CommandHandler[Any, R]] = {}

    def register(self, command_type: type[C], handler: CommandHandler[C, R]) -> None:
        """Let `handler` handle every command of exactly this type.

        Raises:
            ValueError: The type has a handler already.
        """
        _add(self._handlers, command_type, handler)

    async def dispatch(self, command: Command) -> R:
        """Pass the command to its handler and return what the handler returns.

        Raises:
            NoCommandHandler: `No handler registered for command: X`, X the name of its class.
        """
        handler = self._handlers.get(type(command))
        if handler is None:
            raise NoCommandHandler(type(command).__name__)
        return await handler(command)


class WaitForToken(Protocol):
    """Runs a query once its view shows the writes of a token; see `views/read_your_writes.py`."""

    async def __call__(
        self, token: Token, timeout: float, run_query: Callable[[], Awaitable[T]], /
    ) -> T:
        """Return the query's result. Raises ViewBehind if the wait exceeds `timeout` seconds."""


class _Registration(NamedTuple):
    handle: QueryHandler[Any]
    after: WaitForToken | None


class QueryBus:
    """Bus for queries. The type of a query determines the type of its result."""

    def __init__(self) -> None:
        self._handlers: dict[type[Any], _Registration] = {}

    def register(
        self,
        query_type: type[Q],
        handler: QueryHandler[Q],
        *,
        after: WaitForToken | None = None,
    ) -> None:
        """Let `handler` answer every query of exactly this type.

        `after` waits for the token if a query is given one. Without it these queries take no token.

        Raises:
            ValueError: The type has a handler already.
        """
        _add(self._handlers, query_type, _Registration(handler, after))

    async def execute(
        self,
        query: object,
        *,
        at_least: Token | str | Iterable[Token | str] | None = None,
        timeout: float = DEFAULT_WAIT_S,
    ) -> Any:
        """Pass the query to its handler and return the result.

        Args:
            query: The query.
            at_least: The token of an outcome, or several: the result includes their writes.
            timeout: Most seconds to wait until the view shows those writes. The query itself has
                timeouts of its own.

        Raises:
            NoQueryHandler: `No handler registered for query: X`, X the name of its class.
            QueryError: This query takes no token, or the timeout is out of range.
            InvalidToken: This is no token, or not one for this view.
            ViewBehind: The write succeeded, and the view did not show it in time.
        """
        handler = self._handlers.get(type(query))
        if handler is None:
            raise NoQueryHandler(type(query).__name__)
        token = join([at_least] if isinstance(at_least, Token | str) else at_least or ())
        if token is None:
            return await handler.handle(query)
        if handler.after is None:
            raise QueryError(f"{type(query).__name__} is answered at once: give it no token")
        if not 0 < timeout <= _MAX_WAIT_S:
            raise QueryError(f"timeout must be a number of seconds above 0, to {_MAX_WAIT_S:g}")
        return await handler.after(token, timeout, partial(handler.handle, query))


def _add(handlers: dict[type[Any], Any], message_type: type[Any], handler: object) -> None:
    if message_type in handlers:
        raise ValueError(f"{message_type.__name__} has a handler already")
    handlers[message_type] = handler
