"""What a start tells the person who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Says nothing; the terminal's version is in `deploy.commands.stack`."""

    def step(self, text: str) -> None:
        """A new step has begun."""

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Something takes a while: as long as the block."""
        self.step(text)
        yield

    @contextmanager
    def downloading(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A download of `total` bytes; the yielded function takes the bytes that came in."""
        self.step(text)
        yield lambda _size: None
