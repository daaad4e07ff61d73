"""A log whose bytes are others than those that were written: what is before them is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from models.errors import PartitionFatal
from streams.kafka.aiokafka_patches import _PartitionRecords
from streams.kafka.batches import BoundedRecords
from streams.worker import fetcher

TP = TopicPartition("users.commands.v1", 3)


class Log:
    """A partition of two batches, with the offsets 0 to 2 and 3 to 4, and a consumer's position."""

    def __init__(self) -> None:
        self._batches = [batch(0, 3), batch(3, 2)]
        self.paused = False
        self.position = 0

    def consumed_to(self, position: int) -> None:
        self.position = position

    def damage(self, number: int) -> None:
        """Change the bits of the last byte of a batch; once more: change them back."""
        self._batches[number][-1] ^= 0xFF

    def fetch(self) -> FetchResult:
        """Fetch all batches from the position on."""
        start = 0 if self.position < 3 else 1
        data = BoundedRecords(b"".join(map(bytes, self._batches[start:])))
        records = _PartitionRecords(TP, data, [], self.position, None, None, True, READ_COMMITTED)
        assignment = SimpleNamespace(active=True, state_value=lambda _: self)
        return FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)

    def offsets(self) -> list[int]:
        """Fetch once, and return the offsets that a worker's consumer takes out of it."""
        return [record.offset for record in fetcher._take(self.fetch(), None)]


def batch(first: int, count: int) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1000)
    for number in range(count):
        builder.append(number, 1_763_899_200_123, b"key", b"value", [])
    built = bytearray(builder.build())
    built[:8] = first.to_bytes(8, "big")
    return built


def test_what_is_before_the_damage_is_read_and_only_then_it_is_reported() -> None:
    """aiokafka drops what it has unpacked of the same fetch, each time."""
    log = Log()
    log.damage(1)
    assert log.offsets() == [0, 1, 2]
    with pytest.raises(PartitionFatal, match=r"^users\.commands\.v1\[3\] is damaged .* offset 3 "):
        log.offsets()
    assert log.position == 3


def test_a_log_that_was_repaired_is_read_on() -> None:
    log = Log()
    log.damage(0)
    with pytest.raises(PartitionFatal, match="offset 0 "):
        log.offsets()
    log.damage(0)
    assert log.offsets() == [0, 1, 2, 3, 4]


def test_who_reads_by_aiokafkas_own_method_is_told_as_well() -> None:
    log = Log()
    log.damage(1)
    taken: list[Any] = log.fetch().getall()
    assert [record.offset for record in taken] == [0, 1, 2]
    with pytest.raises(PartitionFatal, match="offset 3 "):
        log.fetch().getall()
