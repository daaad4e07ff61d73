"""The state table: read like any Faust table, changed by transactions only."""

from __future__ import annotations

import pytest
from faust.types import TP

from agents.user_commands import app
from streams.state.store import MemoryStore, Position, encode_position, position_key
from streams.state.table import StateTable

COMMANDS = TP("users.commands.v1", 1)


@pytest.fixture
def table() -> StateTable:
    table = StateTable(app, "users-state", "users.state-changelog.v1")
    for number, key in enumerate((b"anna", b"bert")):
        table.owned[number] = MemoryStore()
        table.owned[number].apply({key: key.upper()}, 1)
    return table


def test_it_reads_over_all_owned_partitions(table: StateTable) -> None:
    assert table[b"anna"] == b"ANNA"
    assert table[b"bert"] == b"BERT"
    assert b"carla" not in table
    assert sorted(table) == [b"anna", b"bert"]
    assert len(table) == 2


def test_a_lost_partition_is_gone_from_it(table: StateTable) -> None:
    del table.owned[0]
    assert b"anna" not in table
    assert list(table) == [b"bert"]


def test_the_table_cannot_be_written_outside_a_transaction(table: StateTable) -> None:
    with pytest.raises(TypeError, match="by transactions only"):
        table[b"anna"] = b"other"
    with pytest.raises(TypeError, match="by transactions only"):
        del table[b"anna"]
    assert table[b"anna"] == b"ANNA"


def test_positions_are_not_listed_as_aggregates(table: StateTable) -> None:
    state = table.owned[1]
    assert state.position(COMMANDS) is None
    state.apply({position_key(COMMANDS): encode_position(Position(42))}, 2)
    assert state.position(COMMANDS) == Position(42)
    assert state.position(TP("orgs.commands.v1", 1)) is None
    assert len(table) == 2


def test_a_tombstone_removes_its_aggregate(table: StateTable) -> None:
    table.owned[0].apply({b"anna": None}, 2)
    assert b"anna" not in table
