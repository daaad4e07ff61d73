"""Every kind of poison is poison, whatever command it is made from, for the reason it names."""

from __future__ import annotations

from uuid import UUID

import pytest

from deploy.samples.commands import generate
from deploy.samples.poison import GIANTS, KINDS, Command
from models.commands import USER_COMMANDS
from models.errors import Poison
from streams.commands.reader import CommandReader
from streams.kafka.partitioner import check_partition, partition_of
from streams.kafka.records import Record

PARTITIONS = 3
COMMANDS: dict[str, Command] = {
    **{str(command["type"]): command for command in generate(300)},
    "EraseUser": {"type": "EraseUser", "id": str(UUID(int=1)), "aggregateId": "anna"},
}
ALL = {**KINDS, **GIANTS}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_each_kind_is_refused_with_its_code(kind: str, command: Command) -> None:
    key, value, headers, astray = ALL[kind].spoil(command)
    partition = (partition_of(key or b"", PARTITIONS) + astray) % PARTITIONS
    record = Record("t", partition, 0, 0, key, value, tuple(headers))
    with pytest.raises(Poison) as refused:
        read(record)
    assert refused.value.code == ALL[kind].code


def read(record: Record) -> None:
    CommandReader(USER_COMMANDS).read(record)
    check_partition(record, PARTITIONS)


def test_it_is_made_from_every_type_of_command() -> None:
    assert COMMANDS.keys() == USER_COMMANDS.keys()
