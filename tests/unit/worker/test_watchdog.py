"""When the watchdog takes something for stalled."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP

from streams.worker.partition import PartitionStatus
from streams.worker.watchdog import Expectation, Watchdog

WhatIsDue = dict[TP | None, Expectation]

PARTITION = TP("things.commands.v1", 0)
OTHER = TP("things.commands.v1", 1)
LOOKS = 12  # the watchdog's, in one timeout


@pytest.fixture
def watchdog() -> Watchdog:
    """It is told here what it would find out."""
    nothing = cast(Any, None)
    return Watchdog(nothing, nothing)


def test_a_partition_without_change_for_the_timeout_is_overdue(watchdog: Watchdog) -> None:
    due: WhatIsDue = {PARTITION: Expectation((5, 0), "it stands at 5")}
    assert [watchdog.overdue(due) for _ in range(LOOKS)] == [None] * LOOKS
    assert watchdog.overdue(due) == "it stands at 5"


@pytest.mark.parametrize("change", [(6, 0), (5, 1), (4, 0)])
def test_any_change_is_progress(watchdog: Watchdog, change: tuple[int, int]) -> None:
    """A higher position; another failure, which is logged; and a lower one: it starts again."""
    for _ in range(LOOKS):
        watchdog.overdue({PARTITION: Expectation((5, 0), "it stands at 5")})
    changed: WhatIsDue = {PARTITION: Expectation(change, "it stands elsewhere")}
    assert [watchdog.overdue(changed) for _ in range(LOOKS)] == [None] * LOOKS
    assert watchdog.overdue(changed) == "it stands elsewhere"


def test_waiting_or_idle_at_one_check_restarts_the_timeout(watchdog: Watchdog) -> None:
    due: WhatIsDue = {PARTITION: Expectation((5, 0), "it stands at 5")}
    for _ in range(LOOKS):
        watchdog.overdue(due)
    watchdog.overdue({})
    assert [watchdog.overdue(due) for _ in range(LOOKS)] == [None] * LOOKS


def test_progress_of_one_partition_does_not_hide_another(watchdog: Watchdog) -> None:
    lines = [
        watchdog.overdue(
            {
                OTHER: Expectation((5, 0), "it stands at 5"),
                PARTITION: Expectation((position, 0), "it moves"),
            }
        )
        for position in range(LOOKS + 1)
    ]
    assert lines[-1] == "it stands at 5"


class Known:
    """The worker's partitions, of this status."""

    def __init__(self, status: PartitionStatus) -> None:
        self._status = status
        self.ends: dict[TP, int] = {}

    def status(self, _: TP) -> PartitionStatus:
        return self._status

    def note_ends(self, ends: dict[TP, int]) -> None:
        self.ends.update(ends)


class WithoutALeader:
    """A consumer in its group, of two partitions; one of them has no leader."""

    _subscription = SimpleNamespace(topics={PARTITION.topic}, reassignment_in_progress=False)
    _coordinator = SimpleNamespace(_heartbeat_task=SimpleNamespace(done=lambda: False))

    def assignment(self) -> set[TP]:
        return {PARTITION, OTHER}

    async def end_offsets(self, partitions: Sequence[TP]) -> dict[TP, int]:
        if OTHER in partitions:
            raise KafkaTimeoutError
        return dict.fromkeys(partitions, 7)


@pytest.mark.parametrize(
    "status", [PartitionStatus(None, parked="do this"), PartitionStatus(5, is_waiting=True)]
)
async def test_nobody_expects_progress_of_what_says_why_it_makes_none(
    status: PartitionStatus,
) -> None:
    app = SimpleNamespace(partitions=Known(status))
    assert await Watchdog(cast(Any, app), cast(Any, WithoutALeader()))._due() == {}


async def test_a_partition_without_a_leader_hides_no_other() -> None:
    app = SimpleNamespace(partitions=Known(PartitionStatus(5)))
    due = await Watchdog(cast(Any, app), cast(Any, WithoutALeader()))._due()
    assert list(due) == [PARTITION]
    assert app.partitions.ends == {PARTITION: 7}
