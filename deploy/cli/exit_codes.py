"""Exit codes of `cqrs`, the same for all commands. Workers have some more (docs/workers.md)."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a program can conclude from the end of a command."""

    OK = 0
    """It was done, or it is so."""
    NO = 1
    """It is not so: there is no such user, the command was rejected, an invariant is broken."""
    WRONG_INPUT = 2
    """An option, a value or a setting is wrong; nothing was done."""
    NOT_RUNNING = 3
    """`status`: the servers do not run (as with service managers)."""
    DEFECT = 70
    """A defect of this program (EX_SOFTWARE)."""
    UNKNOWN = 75
    """It could not be done or found out, as when a server does not answer (EX_TEMPFAIL)."""
    INTERRUPTED = 130
    """Ctrl-C."""
