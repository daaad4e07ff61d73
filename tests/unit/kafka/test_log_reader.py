"""Reading a log that does not get on."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.kafka import log_reader
from streams.kafka.log_reader import read_to

PARTITION = TopicPartition("things.state-changelog.v1", 0)


class SilentConsumer:
    """Stands where it stands, and nothing comes."""

    async def position(self, partition: TopicPartition) -> int:
        return 3

    async def getmany(self, *args: Any, **kwargs: Any) -> dict[TopicPartition, list[Any]]:
        return {}


async def test_without_records_before_the_end_it_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "_STALL_TIMEOUT_S", 0.0)
    with pytest.raises(Transient, match="cannot be read beyond offset 3"):
        async for _ in read_to(SilentConsumer(), PARTITION, end=5):
            pass


async def test_at_the_end_no_record_is_waited_for() -> None:
    assert [records async for records in read_to(SilentConsumer(), PARTITION, end=3)] == []
