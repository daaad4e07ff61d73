"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being done, how much of it is done, and the total (0: not known).
ProgressCallback = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Ignore the progress."""
