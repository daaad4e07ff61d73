"""How `verify` waits for command workers: what it counts, and what it says if they are late."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import orjson
import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP

from agents.users import USERS
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.audit.report import NotCaughtUp
from streams.audit.verify import _Verification
from streams.kafka.log_reader import LogReader
from streams.kafka.records import Record
from streams.progress import no_progress
from streams.settings import Settings
from streams.state.store import Position, encode_position, position_key
from tests.unit.audit.histories import line

NAMES = TopicNames("", "users")
SETTINGS = Settings(partitions=3)
OLD, NEW = "0" * 32, "1" * 32


class Logs:
    """The last commands and stored positions of some partitions."""

    def __init__(
        self, last_commands: dict[int, int], positions: dict[int, int], topic_id: str | None = None
    ) -> None:
        self._last_commands = last_commands
        self._positions = {
            number: Position(position, topic_id) for number, position in positions.items()
        }

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 100)

    async def last_record(
        self, tp: TopicPartition, end: int, wanted: Callable[[Any], bool] = lambda _: True
    ) -> Record | None:
        assert end == 100
        number = tp.partition
        if tp.topic == NAMES.commands and number in self._last_commands:
            return line(tp.topic, self._last_commands[number])
        if tp.topic == NAMES.changelog and number in self._positions:
            key = position_key(TP(NAMES.commands, number))
            record = line(tp.topic, 9, encode_position(self._positions[number]), key)
            assert wanted(record)
            assert not wanted(line(tp.topic, 9, orjson.dumps({}), b"user-1"))
            return record
        return None


async def wait_for_commands(logs: Logs) -> None:
    """Wait, and give up after the first check."""
    verification = _Verification(SETTINGS, USERS, NAMES, cast(LogReader, logs), no_progress, NEW)
    await verification._wait_for_commands(deadline=time.monotonic() - 1)


async def test_a_position_after_the_last_command_is_enough() -> None:
    await wait_for_commands(Logs({0: 7, 1: 0}, {0: 8, 1: 5}))


@pytest.mark.parametrize(
    ("positions", "line"),
    [
        ({0: 8, 1: 40}, "users.commands.v1[1]: 3 positions were not decided in time"),
        ({0: 8}, "users.commands.v1[1]: 43 positions were not decided in time"),
        ({0: 7, 1: 40}, "users.commands.v1[0]: 1 positions were not decided in time"),
    ],
)
async def test_a_partition_that_is_late_is_named_with_what_is_left(
    positions: dict[int, int], line: str
) -> None:
    with pytest.raises(NotCaughtUp) as caught:
        await wait_for_commands(Logs({0: 7, 1: 42}, positions))
    assert str(caught.value) == f"{line}; is a command worker running (`cqrs worker commands`)?"


async def test_positions_of_a_former_topic_are_none_of_this_one() -> None:
    await wait_for_commands(Logs({0: 7}, {0: 8}, NEW))
    with pytest.raises(Fatal, match=r"deleted and created again.*`cqrs topics adopt 0`"):
        await wait_for_commands(Logs({0: 7}, {0: 8}, OLD))
