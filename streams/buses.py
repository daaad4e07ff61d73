"""Command bus and query bus: from the type of a message to the one handler that answers it.

In the worker the command bus hands a decoded command to what decides it; at a client the same bus
has a handler that sends to Kafka and waits for the outcome. `dispatch` adds well under a
microsecond: a type look-up and a coroutine.
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

# Seconds that a query with a token waits, unless it says otherwise, and at most.
DEFAULT_WAIT = 10.0
_LONGEST_WAIT = 3600.0


class CommandHandler(Protocol[C_contra, R_co]):
    """Handles commands of one type, or of several: a function or a bound method."""

    def __call__(self, command: C_contra, /) -> Awaitable[R_co]:
        """Handle the command. What it raises reaches whoever dispatched it."""


class QueryHandler(Protocol[Q_contra]):
    """Answers queries of one type, or of several: a function or a bound method."""

    def __call__(self, query: Q_contra, /) -> Awaitable[Any]:
        """Answer the query. What it raises reaches whoever asked."""


class CommandBus(Generic[R]):
    """Dispatches commands; `R` is what every handler returns, an outcome for instance."""

    def __init__(self) -> None:
        self._handlers: dict[type[Any], CommandHandler[Any, R]] = {}

    def register(self, command_type: type[C], handler: CommandHandler[C, R]) -> None:
        """Let `handler` handle every command of exactly this type.

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


class WaitForToken(Protocol):
    """Answers a query once the writes of a token can be seen; see `views/read_your_writes.py`."""

    async def __call__(
        self, token: Token, timeout: float, answer: Callable[[], Awaitable[T]], /
    ) -> T:
        """The answer. Raises ViewBehind if it takes longer than `timeout` seconds to be seen."""


class _Registration(NamedTuple):
    handle: QueryHandler[Any]
    after: WaitForToken | None


class QueryBus:
    """Executes queries. What the answer is belongs to the type of the query."""

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

        `after` is what it has to wait for if it is given a token; without one it takes none.

        Raises:
            ValueError: The type has a handler already.
        """
        _add(self._handlers, query_type, _Registration(handler, after))

    async def execute(
        self,
        query: object,
        *,
        at_least: Token | str | Iterable[Token | str] | None = None,
        timeout: float = DEFAULT_WAIT,
    ) -> Any:
        """Hand the query to its handler and return the answer.

        Args:
            query: What is asked.
            at_least: The token of an outcome, or several: the answer is as new as they are, or
                newer.
            timeout: Seconds until that is the case, at most; the query itself has its own time.

        Raises:
            NoQueryHandler: `No handler registered for query: X`, X the name of its class.
            QueryError: This query cannot wait, or not for such a time. InvalidToken: it cannot
                wait for this token.
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
        if not 0 < timeout <= _LONGEST_WAIT:
            raise QueryError(f"timeout must be a number of seconds above 0, to {_LONGEST_WAIT:g}")
        return await handler.after(token, timeout, partial(handler.handle, query))


def _add(handlers: dict[type[Any], Any], message_type: type[Any], handler: object) -> None:
    if message_type in handlers:
        raise ValueError(f"{message_type.__name__} has a handler already")
    handlers[message_type] = handler
