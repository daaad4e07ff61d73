"""One tree of errors, by what has to happen next.

    CqrsError
     ├── Rejected             a rule forbids the command: a reply, no retry, no dead letter
     ├── Poison               the record cannot be read or decided: a dead letter
     ├── Transient            retry, with backoff
     ├── Fatal                stop, and print the one line that says what to do
     │    ├── InvalidSettings variables of the environment are wrong; nothing was done
     │    ├── PartitionFatal  one partition cannot continue, the others can
     │    └── NoSuchView      there is no index behind a view's name
     ├── NoHandler            there is no handler for this type of message
     │    ├── NoCommandHandler
     │    └── NoQueryHandler
     ├── OutcomeTimeout       the outcome of a command did not come in time
     ├── InvalidCommand       refused at the client, before anything was sent
     ├── QueryError           a query with an invalid parameter
     │    └── InvalidToken    the text is no token, or the token is not for this view
     └── ViewBehind           the view did not show the write of a token in time

Other modules derive special cases of `Transient` and `Fatal`.

A handler of commands may raise `Rejected`, `Transient` and `Fatal`. Anything else that it raises,
also an OSError, is a defect and makes a dead letter of the command (`decide-failed`).

The codes of `Rejected` and `Poison` are part of the wire contract: other programs match on them,
and they never change. The texts are for people, and contain no personal data.
"""

# ruff: noqa: N818  (they are named after what happened, and not all are mistakes)

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
    "parked-full",
    "dropped",
    "forged-control",
    "unreadable",
    "unreadable-state",
    "refused-document",
]


class CqrsError(Exception):
    """Base of the tree."""


class _Coded(CqrsError):
    """An error with a code for programs and one line for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason

    def without_traceback(self) -> Self:
        """Return a copy to keep: a traceback would keep alive all objects of its frames."""
        return type(self)(self.code, self.reason)


class Rejected(_Coded):
    """The command was understood, and a rule forbids it."""


class Poison(_Coded):
    """The record cannot be read, or breaks the code that decides it. The code is a `PoisonCode`."""

    def __init__(self, code: PoisonCode, reason: str) -> None:
        super().__init__(code, reason)


class Transient(CqrsError):
    """Something outside of this process failed this time."""


class Fatal(CqrsError):
    """Continuing would do harm or never help. The text is one line that says what to do."""


class InvalidSettings(Fatal):
    """Settings are wrong. `problems` contains a line for each, and so does the text.

    The text of a single one is that line alone. No line contains a value.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return "\n  ".join([f"{len(self.problems)} settings are wrong:", *self.problems])


class PartitionFatal(Fatal):
    """One partition cannot continue, and says nothing about the others.

    A worker parks the partition, reports why, and tries again from time to time. It stops if all of
    its partitions are parked. Other programs stop as for any `Fatal`.
    """


class NoSuchView(Fatal):
    """There is no index behind a view's name: never created, not complete yet, or deleted."""


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
    """No outcome came in time. The command may still be decided: send it again with the same id."""


class InvalidCommand(CqrsError):
    """The command breaks rules of its fields. `problems` contains a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(self.problems)


class QueryError(CqrsError):
    """A query with an invalid parameter, for instance a limit, a cursor or a timeout."""


class InvalidToken(QueryError):
    """The text is no token, or a token of another cluster, topic or partition."""


class ViewBehind(CqrsError):
    """The write succeeded, but the view does not show it yet. Repeat with the same token."""
