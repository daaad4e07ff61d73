"""Stop a worker that has records to process but makes no progress.

Whatever ends or hangs without an error (in Faust, in aiokafka, in an agent or a handler) leaves a
process that looks alive and does nothing. Its sign is a partition with records to process whose
position does not move. Two things do not count:

- waiting: a broker that does not respond is an outage, and so is what a driver retries or waits
  for and logs, also while its partition is parked (`PartitionStatus`);
- time in which this process was suspended: checks are counted, not seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import async_timeout
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.types import TP

from models.errors import Fatal
from streams.kafka.clients import check_connection
from streams.kafka.permissions import NOT_ALLOWED, not_allowed
from streams.logs import name_of
from streams.worker.host import Host

_CHECKS_PER_TIMEOUT = 12
_RESPONSE_TIMEOUT_S = 5.0  # of the brokers, in one check


class Expectation(NamedTuple):
    """Something that has to change before the timeout is over."""

    state: object
    """State now; any other one is progress."""
    line: str
    """What to report if it stays the same."""


class Watchdog:
    """Watchdog of the partitions and the group membership of one worker.

    It runs in the consumer's thread, so that it also notices a blocked event loop of the app.
    """

    def __init__(self, app: Host, consumer: AIOKafkaConsumer) -> None:
        """Watch the partitions that ``consumer`` is assigned as the app's member of its group."""
        self._app = app
        self._consumer = consumer
        self._unchanged: dict[TP | None, tuple[object, int]] = {}

    async def run(self) -> None:
        """Check until the app stops, and stop it with one line if it makes no progress."""
        timeout = self._app.settings.stall_timeout
        while not self._app.should_stop:
            await asyncio.sleep(timeout / _CHECKS_PER_TIMEOUT)
            try:
                self._check_tasks()
                line = self.overdue(await self._due())
            except Fatal as error:
                self._app.fail(error)
                return
            except NOT_ALLOWED as error:
                self._app.fail(not_allowed(error, self._app.settings, "Read"))
                return
            if line is not None:
                self._app.fail(
                    Fatal(
                        f"{line} for {timeout:g} s, and nothing says what it waits for: start the "
                        "worker again, and look for the reason in its log"
                    )
                )

    def overdue(self, due: Mapping[TP | None, Expectation]) -> str | None:
        """Compare with the checks before; return the line of what did not change for a timeout."""
        still: dict[TP | None, tuple[object, int]] = {}
        line = None
        for what, now in due.items():
            before, checks = self._unchanged.get(what, (None, 0))
            still[what] = now.state, checks + 1 if before == now.state else 1
            if still[what][1] > _CHECKS_PER_TIMEOUT:
                line = now.line
        self._unchanged = still
        return line

    def _check_tasks(self) -> None:
        """Raise the errors that aiokafka keeps for its own ``getmany``, which is not called here.

        Otherwise an error of the group, or the end of aiokafka's tasks, would go unnoticed.
        """
        coordinator, fetcher = self._consumer._coordinator, self._consumer._fetcher
        for task in (coordinator._coordination_task, fetcher._fetch_task):
            if task.done() and not self._app.should_stop:
                if not task.cancelled():
                    task.result()
                raise Fatal(f"aiokafka has ended its {task.get_coro().__name__}: start again")
        coordinator.check_errors()

    async def _due(self) -> dict[TP | None, Expectation]:
        """Return what has to change, by partition; None is the group membership.

        Raises:
            Refused: no broker responds, because they refuse this worker.
        """
        owned = [TP(*partition) for partition in self._consumer.assignment()]
        topics = self._consumer._subscription.topics
        asked = owned or [TP(topic, 0) for topic in topics]
        ends = dict(zip(asked, await asyncio.gather(*map(self._end, asked)), strict=True))
        known = {tp: end for tp, end in ends.items() if end is not None}
        if not known:
            await check_connection(self._app.settings)  # an outage, unless this raises
            return {}
        self._app.partitions.note_ends(known)
        if not self._is_member():
            group = self._consumer._coordinator
            if group.coordinator_id is None:
                return {}  # aiokafka searches for it, and logs each failure
            return {None: Expectation(group.generation, f"outside of the group {group.group_id}")}
        return {tp: due for tp in owned if (due := self._due_of(tp, ends[tp])) is not None}

    async def _end(self, tp: TP) -> int | None:
        """Return the last stable offset, after which nothing can be read; None: no response.

        Each partition is asked for by itself: for several, aiokafka fails if one has no leader.
        """
        try:
            async with async_timeout.timeout(_RESPONSE_TIMEOUT_S):
                found = await self._consumer.end_offsets([tp])
        except (KafkaError, asyncio.TimeoutError):
            return None
        return int(found[tp])

    def _due_of(self, tp: TP, end: int | None) -> Expectation | None:
        now = self._app.partitions.status(tp)
        if end is None or now.is_waiting or now.parked is not None:
            return None
        name = name_of(tp)
        if now.position is None:
            return Expectation(now, f"{name} has not been started")
        if now.position >= end:
            return None
        return Expectation(
            (now.position, now.failures), f"{name} has stood at position {now.position} of {end}"
        )

    def _is_member(self) -> bool:
        heartbeat = self._consumer._coordinator._heartbeat_task
        return (
            heartbeat is not None
            and not heartbeat.done()
            and not self._consumer._subscription.reassignment_in_progress
        )
