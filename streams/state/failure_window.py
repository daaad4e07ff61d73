"""Share of the last commands of a partition that a program could not decide.

It is a part of the position, so it survives the worker: one that stops because of it, and is
started again, does not get another allowance.
"""

from __future__ import annotations

from typing import Final

import msgspec

_HALF: Final = 5000

WINDOW: Final = 2 * _HALF
"""Number of commands that the share is of; the counts are of the last half of them at least."""


class FailureWindow(msgspec.Struct, frozen=True, array_like=True):
    """Numbers of commands and of failed ones, of this half of the window and of the one before."""

    commands: int = 0
    failed: int = 0
    failed_before: int = 0

    def adding(self, commands: int, failed: int) -> FailureWindow:
        """Return the window after these commands."""
        if self.commands >= _HALF:
            return FailureWindow(commands, failed, self.failed)
        return FailureWindow(self.commands + commands, self.failed + failed, self.failed_before)

    def exceeds(self, share: float) -> bool:
        """Return whether more failed than this share of a whole window."""
        return self.failed + self.failed_before > share * WINDOW
