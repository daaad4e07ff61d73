"""Standard input, output and error of a process that was started without one of them."""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Open the null device for each of the three standard streams that is closed.

    The event loop would get their file descriptors, and libuv aborts when it closes one of these.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
