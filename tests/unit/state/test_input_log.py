"""Offsets are positions in one topic: not in a later one of the same name, nor beyond its log."""

from __future__ import annotations

import pytest
from faust.types import TP

from models.errors import Fatal
from streams.kafka.partitioner import partition_of
from streams.state.input_log import check_bounds, check_partitions, check_topic
from streams.state.store import Position, decode_position, encode_position

COMMANDS = TP("users.commands.v1", 1)
OLD, NEW = "0" * 32, "1" * 32
IDS = [b"user-%d" % number for number in range(100)]


def test_a_position_names_its_topic() -> None:
    position = Position(7, NEW, 4)
    assert decode_position(encode_position(position)) == position
    assert encode_position(position) == b'{"position":7,"topic":"%s","partitions":4}' % NEW.encode()


def test_positions_of_other_versions_can_be_read() -> None:
    assert decode_position(b'{"position":7}') == Position(7)
    assert decode_position(b'{"position":7,"later":{}}') == Position(7)
    assert encode_position(Position(7)) == b'{"position":7}'


@pytest.mark.parametrize("stored", [None, Position(7), Position(7, NEW, 4)])
def test_the_same_topic_or_an_unknown_one_is_adopted(stored: Position | None) -> None:
    check_topic(COMMANDS, stored, NEW)


def test_a_topic_that_was_created_again_is_refused() -> None:
    with pytest.raises(Fatal, match="deleted and created again") as caught:
        check_topic(COMMANDS, Position(7, OLD, 4), NEW)
    assert "`cqrs topics adopt 1` (or `--all`)" in str(caught.value)


def test_a_state_of_this_number_of_partitions() -> None:
    ours = [key for key in IDS if partition_of(key, 4) == 1]
    check_partitions(COMMANDS, None, [], 4)
    check_partitions(COMMANDS, Position(7), ours, 4)
    check_partitions(COMMANDS, Position(7, NEW, 4), ours, 4)


@pytest.mark.parametrize("stored", [Position(7), Position(7, NEW, 2)])
def test_a_state_of_another_number_of_partitions_is_refused(stored: Position) -> None:
    theirs = [key for key in IDS if partition_of(key, 2) == 1]
    with pytest.raises(Fatal, match="fixed for a deployment's life") as caught:
        check_partitions(COMMANDS, stored, theirs, 4)
    assert "CQRS_PARTITIONS" not in str(caught.value)


def test_a_position_within_the_log() -> None:
    for offset in (3, 5, 9):
        check_bounds(COMMANDS, Position(offset, NEW), 3, 9)


def test_commands_that_expired_undecided() -> None:
    with pytest.raises(Fatal, match=r"2 commands expired .*`cqrs topics skip-expired 1`"):
        check_bounds(COMMANDS, Position(1, NEW), 3, 9)


def test_a_log_that_ends_before_the_position() -> None:
    with pytest.raises(Fatal, match="ends at 9, before the position 10: Kafka lost records"):
        check_bounds(COMMANDS, Position(10, NEW), 3, 9)
    with pytest.raises(Fatal, match=r"ends at 9, before the position 10: if .* adopt 1`"):
        check_bounds(COMMANDS, Position(10), 3, 9)
