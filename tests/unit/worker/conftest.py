"""A driver that has started, with its worker and its partition."""

from __future__ import annotations

import pytest

from streams.worker.driver import PartitionDriver
from tests.unit.worker.driving import FakePartition, FakeWorker, idle, new_driver


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def partition() -> FakePartition:
    return FakePartition(position=10)


@pytest.fixture
async def driver(worker: FakeWorker, partition: FakePartition) -> PartitionDriver:
    driver = new_driver(worker, partition)
    driver.start()
    await idle(driver)
    return driver
