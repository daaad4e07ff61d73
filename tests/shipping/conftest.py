from __future__ import annotations

import pytest

from tests.shipping.pythons import tried


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say on which Pythons the package was tried: a machine has some, and not others."""
    if config.getoption("--shipping"):
        terminalreporter.line(tried())
