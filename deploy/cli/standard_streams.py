"""Standard streams that may be closed, or that nobody reads any more."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any

from streams.standard_streams import open_standard_streams


class _StandardError(io.FileIO):
    """Standard error; what nobody reads any more goes nowhere, so it does not stop the work."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def prepare_streams() -> None:
    """Open the standard streams that are closed, and let a failing reader of errors stop nothing.

    Standard error stays as it is if somebody has replaced it.
    """
    open_standard_streams()
    original = sys.__stderr__
    if original is not None and sys.stderr is original:
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_StandardError(original.fileno(), "w", closefd=False)),
            encoding=original.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )


def discard_output() -> None:
    """Let what is still buffered go nowhere: Python would fail again to write it at the end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
