"""Decides which indices a view worker keeps up to date, and when a new one starts to serve queries.

A worker follows every index that is `followed` (see `views/indices.py`) and has its definition:
usually one, two after a rebuild. If there is no index, it creates one. That one serves queries once
it has all events that existed when it was created, so that no search sees half a view.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

from elasticsearch import AsyncElasticsearch

from models.errors import Fatal, NoSuchView, Transient
from models.messages import Event
from streams.logs import about
from streams.settings import Settings
from streams.views.dead_letters import ViewDeadLetters
from streams.views.indices import IndexState, ViewIndices
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.store import ViewStore
from streams.views.writer import PartitionWriter

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)

_CHECK_INTERVAL_S = 1.0
_CHECK_INTERVAL_UNTIL_SERVING_S = 0.25  # while no query can be answered

_Key = tuple[str, str]  # `IndexState.key`


class ViewFollower(Generic[E]):
    """Finds the indices of one view to follow and opens writers for them, in one worker."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        cluster: str,
        dead_letters: ViewDeadLetters,
        last_positions: Callable[[], Awaitable[Mapping[int, int]]],
    ) -> None:
        """Create a follower; `writers` starts the work for one partition.

        Args:
            settings: Configuration of the worker.
            client: Connection to Elasticsearch.
            view: The view.
            cluster: Id of the Kafka cluster that the events are read from.
            dead_letters: Takes the events that cannot be projected.
            last_positions: Returns, for each partition of the event topic, the position after its
                last event.
        """
        self._settings = settings
        self._view = view
        self._cluster = cluster
        self._dead_letters = dead_letters
        self._last_positions = last_positions
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._opened: dict[_Key, tuple[ViewStore, Projector[E]]] = {}
        self._is_unreachable = False
        self._creating = asyncio.Lock()  # all partitions start at the same time
        self._active: dict[int, dict[_Key, PartitionWriter[E]]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a request to Elasticsearch has failed and is being repeated."""
        return self._is_unreachable or any(
            projector.is_waiting for _, projector in self._opened.values()
        )

    async def writers(self, partition: int) -> Sequence[PartitionWriter[E]]:
        """Start a writer for each followed index, and return them with the newest index first.

        Raises:
            Fatal: The followed indices have another definition. The message says what to do.
            NoSuchView: An index was deleted meanwhile.
            Transient, KafkaError: A server failed.
        """
        self.release(partition)
        async with self._creating:
            states = await self._ensure_followed()
        self._close_all_but({state.key for state in states})
        writers = {}
        for state in states:
            store, projector = self._open(state)
            writer = PartitionWriter(
                store,
                projector,
                self._view.projection,
                self._dead_letters,
                partition,
                self._cluster,
            )
            await writer.start()
            writers[state.key] = writer
        self._active[partition] = writers
        return list(writers.values())

    def release(self, partition: int) -> None:
        """Drop the writers of a partition that is given up or starts again."""
        for writer in self._active.pop(partition, {}).values():
            writer.forget()

    async def watch(self, restart: Callable[[Collection[int]], Awaitable[None]]) -> None:
        """Check the indices until cancelled: let a complete one serve, restart what has changed.

        Args:
            restart: Called with the partitions that have to start again.

        Raises:
            Fatal: An index with a name of the view was not created by this project, or a request
                was refused.
        """
        is_serving = False
        while True:
            await asyncio.sleep(
                _CHECK_INTERVAL_S if is_serving else _CHECK_INTERVAL_UNTIL_SERVING_S
            )
            try:
                states = await self._indices.all()
                is_serving = any(state.serving for state in states) or await self._serve(states)
                changed = await self._changed(states)
            except (Transient, NoSuchView) as error:
                self._is_unreachable = isinstance(error, Transient)
                continue  # the projector logs an outage; a writer notices a deleted index itself
            self._is_unreachable = False
            if changed:
                logger.warning(
                    "%s: the indices have changed; starting again",
                    self._indices.alias,
                    extra=about("index-changed"),
                )
                await restart(changed)

    async def _ensure_followed(self) -> list[IndexState]:
        """Return the indices to follow, the newest first; create one if there is none."""
        while True:
            states = await self._indices.all()
            followed = self._followed(states)
            if followed:
                return followed
            others = [state.name for state in states if state.followed or state.serving]
            if others:
                raise Fatal(
                    f"The view {self._indices.alias} is in {', '.join(others)}, which another "
                    "program created: this one would write different documents; run "
                    f"`cqrs views rebuild {self._view.name}`, and then this worker"
                )
            current = [state for state in reversed(states) if self._indices.is_current(state)]
            if current:  # left by a rebuild, or restored from a snapshot
                await self._indices.follow(current[0].name)
            else:
                await self._create(states[-1].number + 1 if states else 1)

    def _followed(self, states: Sequence[IndexState]) -> list[IndexState]:
        """Return the followed indices of this program's definition, the newest first."""
        return [one for one in reversed(states) if one.followed and self._indices.is_current(one)]

    async def _create(self, number: int) -> None:
        wanted = await self._last_positions()
        if await self._indices.create(number, wanted, followed=True) and any(wanted.values()):
            logger.warning(
                "%s: there is no index; making %s-v%d from the first event, and searches see "
                "nothing before it is complete",
                self._indices.alias,
                self._indices.alias,
                number,
                extra=about("index-created"),
            )

    async def _serve(self, states: Sequence[IndexState]) -> bool:
        """Let the newest complete index serve queries, and return whether there is one."""
        for state in self._followed(states):
            store, _ = self._open(state)
            reached = (await store.checkpoints(range(self._settings.partitions))).checkpoints
            if all(reached[number].position >= end for number, end in state.wanted.items()):
                await self._indices.serve(state.name)
                logger.info(
                    "%s: searches see %s now",
                    self._indices.alias,
                    state.name,
                    extra=about("index-serves", index=state.name),
                )
                return True
        return False

    async def _changed(self, states: Sequence[IndexState]) -> set[int]:
        """Return the partitions that follow other indices now, or one that has gone back."""
        followed = {state.key for state in self._followed(states)}
        changed = {number for number, writers in self._active.items() if set(writers) != followed}
        for key in followed & self._opened.keys():
            before = {
                number: writers[key].checkpoint.position
                for number, writers in self._active.items()
                if key in writers and number not in changed
            }
            if before:
                found = (await self._opened[key][0].checkpoints(before)).checkpoints
                changed |= {
                    number
                    for number, position in before.items()
                    if found[number].position < position
                }
        return changed

    def _open(self, state: IndexState) -> tuple[ViewStore, Projector[E]]:
        if state.key not in self._opened:
            store = self._indices.store(state.name)
            projector = Projector(
                store,
                self._view.projection,
                cached_documents=self._settings.view_cache_documents,
            )
            self._opened[state.key] = store, projector
        return self._opened[state.key]

    def _close_all_but(self, followed: Collection[_Key]) -> None:
        for key in self._opened.keys() - set(followed):
            del self._opened[key]
