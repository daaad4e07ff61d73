"""Lines about how far something is, where no terminal could show a bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streams.progress import ProgressCallback

INTERVAL_S = 10.0
"""Between two lines."""


def seldom(
    say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> ProgressCallback:
    """Return a callback that says how far it is, but only every ten seconds."""
    said = clock()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal said
        now = clock()
        if now - said >= INTERVAL_S:
            said = now
            say(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))

    return progress


@contextmanager
def ticking(
    say: Callable[[str], None], text: str, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """Say every ten seconds for how long the block runs by now."""
    ended = threading.Event()

    def tick() -> None:
        began = time.monotonic()
        while not ended.wait(interval_s):
            say(f"{text} ({time.monotonic() - began:.0f} s)")

    thread = threading.Thread(target=tick, name="ticking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
