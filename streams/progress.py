"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Told what is being done, how much of it is done, and how much it is (0: not known).
ProgressCallback = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """For who does not want to know."""
