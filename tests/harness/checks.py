"""What a scenario raises when a guarantee does not hold."""

from __future__ import annotations

from models.errors import Fatal


class Failed(Fatal):
    """A guarantee does not hold; the line names it."""


def require(condition: object, line: str) -> None:
    """Raise `Failed` with this line unless the condition holds."""
    if not condition:
        raise Failed(line)
