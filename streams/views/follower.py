"""Keeps the indices of a view up to date in one worker, as `views/lifecycle.py` plans it.

The worker looks at the indices every second and carries out what is planned. The partitions of the
worker project into the index that people read (`lead`). Every other followed index is fed by a task
of its own (`views/feed.py`), at its own pace: one that is red, read-only or slow holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from aiokafka.errors import KafkaError
from elasticsearch import AsyncElasticsearch

from models.errors import CqrsError, Fatal, NoSuchView, Transient
from models.messages import Event
from streams import metrics
from streams.concurrency import cancel
from streams.logs import about
from streams.settings import Settings
from streams.views.checkpoint import IndexChanged
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import EventReader
from streams.views.feed import Feed
from streams.views.indices import ViewIndices
from streams.views.lifecycle import (
    Action,
    Create,
    Delete,
    Follow,
    Project,
    Refuse,
    Serve,
    Strip,
    Wait,
    Warn,
    Work,
    plan,
)
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.situation import EventLog, IndexState, Key, Situation, trouble
from streams.views.writer import PartitionWriter
from streams.worker.logs import log_defect

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)

_CHECK_INTERVAL_S = 1.0
_CHECK_INTERVAL_UNTIL_SERVING_S = 0.25  # while no query can be answered
_LOG_INTERVAL_S = 60.0

# Wait before a feed that failed starts again: the bound doubles with each failure.
_FEED_RETRY_S = 1.0
_MAX_FEED_RETRY_S = 60.0


class _Feeding(NamedTuple):
    """A task that feeds one index, for these partitions."""

    partitions: frozenset[int]
    task: asyncio.Task[None]


class ViewFollower(Generic[E]):
    """Finds the indices of one view to project into, in one worker."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        log: EventLog,
        topic: str,
        reader: EventReader[E],
        dead_letters: ViewDeadLetters,
        last_positions: Callable[[], Awaitable[Mapping[int, int]]],
    ) -> None:
        """Create a follower; `lead` starts the work for one partition.

        Args:
            settings: Configuration of the worker.
            client: Connection to Elasticsearch.
            view: The view.
            log: The event topic.
            topic: Its name.
            reader: Reads the events for indices that are not the lead.
            dead_letters: Takes the events that cannot be projected.
            last_positions: Returns, for each partition of the event topic, the position after its
                last event.
        """
        self.log = log
        self._settings = settings
        self._view = view
        self._topic = topic
        self._reader = reader
        self._dead_letters = dead_letters
        self._last_positions = last_positions
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._acting = asyncio.Lock()  # all partitions start at the same time
        self._has_looked = False
        self._waits = False  # for Elasticsearch, or for what a person has to do
        self._said: dict[str, float] = {}
        self._projectors: dict[Key, Projector[E]] = {}
        self._leads: dict[int, tuple[Key, PartitionWriter[E]]] = {}
        self._feeds: dict[Key, _Feeding] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether projecting into the lead waits for Elasticsearch, or for a person."""
        leads = {key for key, _ in self._leads.values()}
        return self._waits or any(
            projector.is_waiting for key, projector in self._projectors.items() if key in leads
        )

    async def lead(self, partition: int) -> PartitionWriter[E]:
        """Start a writer into the index that this partition projects into, and return it.

        Waits until there is such an index, and until it can be read.

        Raises:
            Fatal: The view's indices have another definition. The message says what to do.
            PartitionFatal: The partition's checkpoint is damaged.
            NoSuchView: The index was deleted meanwhile.
            Transient, KafkaError: A server failed.
        """
        self.release(partition)
        project = await self._decide()
        key = project.lead.key
        await self._stop_feed(key)
        if key not in self._projectors:
            self._projectors[key] = self._projector(project.lead)
        writer = self._writer(project.lead, self._projectors[key], partition)
        self._leads[partition] = key, writer
        await writer.start()
        return writer

    def release(self, partition: int) -> None:
        """Drop the writer of a partition that is given up or starts again, and stop feeding it."""
        lead = self._leads.pop(partition, None)
        if lead is not None:
            lead[1].forget()
        for feeding in self._feeds.values():
            if partition in feeding.partitions:
                feeding.task.cancel()
        for key in self._projectors.keys() - {key for key, _ in self._leads.values()}:
            del self._projectors[key]

    async def watch(self, restart: Callable[[Collection[int]], Awaitable[None]]) -> None:
        """Look and act until cancelled, and restart the partitions whose lead has changed.

        Args:
            restart: Called with the partitions that have to start again.

        Raises:
            Fatal: Elasticsearch refuses, or the indices are such that only a person can mend them.
        """
        is_serving = False
        try:
            while True:
                await asyncio.sleep(
                    _CHECK_INTERVAL_S if is_serving else _CHECK_INTERVAL_UNTIL_SERVING_S
                )
                if not self._leads:
                    metrics.VIEW_INDEX_POSITION.clear()  # what is seen next may be another
                    await self._feed_others(())
                    continue  # no partition is here, or each is about to look itself
                positions = {
                    number: writer.checkpoint.position
                    for number, (_, writer) in self._leads.items()
                }
                try:
                    situation, project = await self._look_and_act()
                except (Transient, KafkaError, NoSuchView) as error:
                    # A writer notices a deleted index itself.
                    self._waits = isinstance(error, Transient) and not isinstance(
                        error, IndexChanged
                    )
                    if self._waits:  # the projector logs it only while it has events
                        self._say(f"the indices cannot be looked at: {error}")
                    continue
                is_serving = bool(situation.serving)
                if project is None:
                    continue
                changed = self._changed(project, positions)
                if changed:
                    logger.warning(
                        "%s: the indices have changed; starting again",
                        self._indices.alias,
                        extra=about("index-changed"),
                    )
                    await restart(changed)
                await self._feed_others(project.others)
        finally:
            for key in list(self._feeds):
                await self._stop_feed(key)

    async def _decide(self) -> Project:
        """Look and act until it is known what to project into."""
        while True:
            try:
                _, project = await self._look_and_act()
            except IndexChanged:
                project = None
            if project is not None:
                return project
            await asyncio.sleep(_CHECK_INTERVAL_UNTIL_SERVING_S if not self._waits else 1.0)

    async def _look_and_act(self) -> tuple[Situation, Project | None]:
        """Carry out what is planned for the indices; return what to project into, if it is known.

        Raises:
            Fatal: It is refused.
            IndexChanged: Somebody else has acted meanwhile: look again.
            Transient, KafkaError: A server failed.
        """
        async with self._acting:
            situation = await self._indices.look(self.log, starting=not self._has_looked)
            self._has_looked = True
            _show_positions(situation.indices)
            actions = plan(situation, Work())
            project = None
            self._waits = False
            for action in actions:
                if isinstance(action, Project):
                    project = action
                    self._check_lead(situation, action.lead)
                else:
                    await self._carry_out(action)
            # After a change, the next look decides.
            passive = all(isinstance(one, Project | Wait | Warn) for one in actions)
            return situation, project if passive else None

    def _check_lead(self, situation: Situation, lead: IndexState) -> None:
        """Say what the lead waits for, also if there is no event to project."""
        if lead.checkpoints is None:
            self._waits = True
            self._say(f"{lead.name} is waited for: {trouble(situation, lead)}")

    async def _carry_out(self, action: Action) -> None:
        alias = self._indices.alias
        if isinstance(action, Refuse):
            raise Fatal(action.line)
        if isinstance(action, Wait | Warn):
            self._waits = self._waits or isinstance(action, Wait)
            self._say(action.line)
        elif isinstance(action, Create):
            await self._create(action)
        elif isinstance(action, Follow | Serve | Strip | Delete):
            await self._indices.carry_out(action)
            if isinstance(action, Serve):
                logger.info(
                    "%s: searches see %s now",
                    alias,
                    action.index.name,
                    extra=about("index-serves", index=action.index.name),
                )
            elif isinstance(action, Follow):
                logger.info(
                    "%s: %s is kept up to date",
                    alias,
                    action.index.name,
                    extra=about("index-mended", index=action.index.name),
                )
            elif isinstance(action, Strip):
                names = ", ".join(sorted(action.aliases))
                logger.warning(
                    "%s: took the aliases %s from %s",
                    alias,
                    names,
                    action.name,
                    extra=about("index-mended", index=action.name),
                )

    async def _create(self, action: Create) -> None:
        wanted = await self._last_positions()
        is_new = await self._indices.create(
            action.number, wanted, followed=action.followed, log=self.log
        )
        if is_new and any(wanted.values()):
            logger.warning(
                "%s: there is no index; making %s-v%d from the first event, and searches see "
                "nothing before it is complete",
                self._indices.alias,
                self._indices.alias,
                action.number,
                extra=about("index-created"),
            )

    def _say(self, line: str) -> None:
        """Log a line, once a minute."""
        now = time.monotonic()
        if now >= self._said.get(line, now):
            logger.warning(
                "%s: %s", self._indices.alias, line, extra=about("index-waits", reason=line)
            )
            self._said[line] = now + _LOG_INTERVAL_S

    def _changed(self, project: Project, before: Mapping[int, int]) -> set[int]:
        """Return the partitions that have another lead now, or whose lead has gone back.

        Args:
            project: What is to be projected into.
            before: Position of each partition before the look.
        """
        key, found = project.lead.key, project.lead.checkpoints
        return {
            number
            for number, (current, _) in self._leads.items()
            if current != key
            or (
                found is not None
                and number in found
                and found[number].position < before.get(number, 0)
            )
        }

    async def _feed_others(self, others: Sequence[IndexState]) -> None:
        """Let a task feed each of these indices, for the partitions that this worker has."""
        while (unwanted := self._unwanted_feed(others)) is not None:
            await self._stop_feed(unwanted)  # a rebalance may change the partitions meanwhile
        partitions = frozenset(self._leads)
        for key, state in self._to_feed(others).items():
            if key not in self._feeds:
                task = asyncio.create_task(
                    self._feed(state, partitions), name=f"feeding {state.name}"
                )
                self._feeds[key] = _Feeding(partitions, task)

    def _to_feed(self, others: Sequence[IndexState]) -> Mapping[Key, IndexState]:
        leads = {key for key, _ in self._leads.values()}
        return {one.key: one for one in others if one.key not in leads} if leads else {}

    def _unwanted_feed(self, others: Sequence[IndexState]) -> Key | None:
        """Return one that has ended, or is not for these indices and this worker's partitions."""
        wanted, partitions = self._to_feed(others), frozenset(self._leads)
        return next(
            (
                key
                for key, feeding in self._feeds.items()
                if key not in wanted or feeding.partitions != partitions or feeding.task.done()
            ),
            None,
        )

    async def _stop_feed(self, key: Key) -> None:
        feeding = self._feeds.pop(key, None)
        if feeding is not None:
            await cancel(feeding.task)

    async def _feed(self, state: IndexState, partitions: Collection[int]) -> None:
        """Feed an index for ever; whatever is wrong with it is said, and tried again."""

        def say(error: Exception) -> None:
            why = str(error) or repr(error)
            self._say(f"{state.name} is not kept up to date, trying again: {why}")

        pause = _FEED_RETRY_S
        while True:
            projector = self._projector(state)
            writers = {
                number: self._writer(state, projector, number) for number in sorted(partitions)
            }
            begun = time.monotonic()
            try:
                await Feed(self._settings, self._topic, self._reader, writers).follow(say)
            except (CqrsError, KafkaError, OSError) as error:
                say(error)
            except Exception as error:
                log_defect(f"feeding {state.name}", error)
            if time.monotonic() - begun > _MAX_FEED_RETRY_S:
                pause = _FEED_RETRY_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_FEED_RETRY_S)

    def _projector(self, state: IndexState) -> Projector[E]:
        return Projector(
            self._indices.store(state.name),
            self._view,
            cached_documents=self._settings.view_cache_documents,
        )

    def _writer(
        self, state: IndexState, projector: Projector[E], partition: int
    ) -> PartitionWriter[E]:
        return PartitionWriter(
            self._indices.store(state.name),
            projector,
            self._view.projection,
            self._dead_letters,
            partition,
            self.log,
        )


def _show_positions(indices: Sequence[IndexState]) -> None:
    metrics.VIEW_INDEX_POSITION.clear()
    for index in indices:
        for number, checkpoint in (index.checkpoints or {}).items():
            gauge = metrics.VIEW_INDEX_POSITION.labels(index.name, index.state, number)
            gauge.set(checkpoint.position)
