"""A promise that was broken."""

from __future__ import annotations

from models.errors import Fatal


class Failed(Fatal):
    """A promise was broken; the line says which."""


def require(condition: object, line: str) -> None:
    """Raise `Failed` with this line unless the condition holds."""
    if not condition:
        raise Failed(line)
