"""A partition of commands whose transactions are kept in memory."""

from __future__ import annotations

import pytest

from streams.commands import partition as command_partition
from tests.unit.commands.deciding import Deciding, Written
from tests.unit.commands.parked_commands import in_order


@pytest.fixture
def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_partition, "TransactionalProducer", Written)


@pytest.fixture
def deciding() -> Deciding:
    """A worker that parks, and whose program is defective."""
    return in_order()
