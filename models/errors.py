"""The one tree of errors, by what has to happen next.

    CqrsError
     ├── Rejected             a business answer: a reply, never a retry, never a dead letter
     ├── Poison               the record cannot be read or decided: a dead letter
     ├── Transient            try again, with backoff
     ├── Fatal                stop, and print the one line which says what to do
     │    └── NoSuchView      there is no index behind a view's name
     ├── NoHandler            a bus was given something it was not set up for
     │    ├── NoCommandHandler
     │    └── NoQueryHandler
     ├── OutcomeTimeout       the reply to a command did not come in time
     ├── InvalidCommand       refused at the client, before anything was sent
     ├── QueryError           a query that asks for what cannot be answered
     │    └── InvalidToken    it is to wait for something that is no token, or not one of this view
     └── ViewBehind           the view did not show in time what a token stands for

The codes of `Rejected` and `Poison` are part of the wire contract: they are matched on by other
programs and never change. The texts are for people, and carry no personal data.
"""

# ruff: noqa: N818  (these are the names of what happened, not all of them mistakes)

from collections.abc import Sequence
from typing import Literal

from typing_extensions import Self

PoisonCode = Literal[
    "malformed-json",
    "not-an-object",
    "missing-field",
    "unknown-type",
    "unknown-version",
    "invalid-field",
    "key-mismatch",
    "wrong-partition",
    "header-mismatch",
    "oversized",
    "decide-failed",
    "unreadable",
    "refused-document",
]


class CqrsError(Exception):
    """Everything that this project raises on purpose."""


class _Coded(CqrsError):
    """An error with a code for programs and one line for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason

    def without_traceback(self) -> Self:
        """The same to be kept: a traceback would keep everything that was at work."""
        return type(self)(self.code, self.reason)


class Rejected(_Coded):
    """The command was understood, and the answer is no."""


class Poison(_Coded):
    """The record cannot be read, or breaks the code that decides it. The code is a `PoisonCode`."""

    def __init__(self, code: PoisonCode, reason: str) -> None:
        super().__init__(code, reason)


class Transient(CqrsError):
    """Something outside did not work this time."""


class Fatal(CqrsError):
    """Going on would do harm or never help. The text is one line that says what to do."""


class NoSuchView(Fatal):
    """There is no index behind a view's name: never made, not complete yet, or deleted."""


class NoHandler(CqrsError):
    """Nothing is registered for this type."""


class NoCommandHandler(NoHandler):
    """Nothing is registered for this type of command."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"No handler registered for command: {self.name}"


class NoQueryHandler(NoHandler):
    """Nothing is registered for this type of query."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"No handler registered for query: {self.name}"


class OutcomeTimeout(CqrsError):
    """No outcome was read in time. The command may still be decided: ask again with the same id."""


class InvalidCommand(CqrsError):
    """The command breaks a rule of its fields. `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(self.problems)


class QueryError(CqrsError):
    """A query with a limit, an offset, a cursor or a text out of bounds."""


class InvalidToken(QueryError):
    """What was given is no token, or one of another cluster, topic or partition."""


class ViewBehind(CqrsError):
    """The write succeeded, and the view does not show it yet. Ask again with the same token."""
