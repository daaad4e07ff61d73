"""Which indices a view worker brings up to date, and when one of them is shown to people.

All that are followed and of its definition: usually one, two after a rebuild. Where there is none,
the worker makes one. People see it when it has all events that there were when it was made, so a
search never answers from half a view.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

from elasticsearch import AsyncElasticsearch

from models.errors import Fatal, NoSuchView, Transient
from models.messages import Event
from streams.settings import Settings
from streams.views.dead_letters import ViewDeadLetters
from streams.views.indices import IndexState, ViewIndices
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.store import ViewStore
from streams.views.writer import PartitionWriter

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)

_LOOK = 1.0  # seconds between two looks at the indices
_LOOK_UNTIL_SHOWN = 0.25  # while nobody can search

_Key = tuple[str, str]  # `IndexState.key`


class ViewFollower(Generic[E]):
    """The indices of one view, as one worker follows them."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        cluster: str,
        letters: ViewDeadLetters,
        wanted: Callable[[], Awaitable[Mapping[int, int]]],
    ) -> None:
        """Of events from this Kafka cluster.

        `wanted` says the positions behind the last event of each partition as of now.
        """
        self._settings = settings
        self._view = view
        self._cluster = cluster
        self._letters = letters
        self._wanted = wanted
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._opened: dict[_Key, tuple[ViewStore, Projector[E]]] = {}
        self._away = False
        self._making = asyncio.Lock()  # all partitions begin at the same time
        self._active: dict[int, dict[_Key, PartitionWriter[E]]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether Elasticsearch has not answered what it was last asked."""
        return self._away or any(projector.is_waiting for _, projector in self._opened.values())

    async def writers(self, partition: int) -> Sequence[PartitionWriter[E]]:
        """A writer for each index that is followed now, started; the newest index first.

        Raises:
            Fatal: What is followed was made by another program. The line says what to do.
        """
        self.release(partition)
        async with self._making:
            states = await self._following()
        self._forget_all_but({state.key for state in states})
        writers = {}
        for state in states:
            store, projector = self._open(state)
            writer = PartitionWriter(
                store, projector, self._view.projection, self._letters, partition, self._cluster
            )
            await writer.start()
            writers[state.key] = writer
        self._active[partition] = writers
        return list(writers.values())

    def release(self, partition: int) -> None:
        """The partition is no longer ours, or begins anew."""
        for writer in self._active.pop(partition, {}).values():
            writer.forget()

    async def watch(self, restart: Callable[[Collection[int]], Awaitable[None]]) -> None:
        """Look after the indices for ever; `restart` is given partitions that have to begin anew.

        Raises:
            Fatal: An index is there that is none of ours.
        """
        shown = False
        while True:
            await asyncio.sleep(_LOOK if shown else _LOOK_UNTIL_SHOWN)
            try:
                states = await self._indices.all()
                shown = any(state.serving for state in states) or await self._show(states)
                changed = await self._changed(states)
            except (Transient, NoSuchView) as error:
                self._away = isinstance(error, Transient)
                continue  # projecting says that it waits, or has noticed by itself
            self._away = False
            if changed:
                logger.warning("%s: the indices have changed; beginning anew", self._indices.alias)
                await restart(changed)

    async def _following(self) -> list[IndexState]:
        """The indices to follow, the newest first; at least one."""
        while True:
            states = await self._indices.all()
            followed = self._followed(states)
            if followed:
                return followed
            others = [state.name for state in states if state.followed or state.serving]
            if others:
                raise Fatal(
                    f"The view {self._indices.alias} is in {', '.join(others)}, which another "
                    "program made: its documents are not what this one would make; run "
                    f"`cqrs views rebuild {self._view.name}`, and then this worker"
                )
            fitting = [state for state in reversed(states) if self._indices.is_current(state)]
            if fitting:  # what a rebuild has left, or a snapshot brought back
                await self._indices.follow(fitting[0].name)
            else:
                await self._make(states[-1].number + 1 if states else 1)

    def _followed(self, states: Sequence[IndexState]) -> list[IndexState]:
        """Those that are followed and of this program's definition, the newest first."""
        return [one for one in reversed(states) if one.followed and self._indices.is_current(one)]

    async def _make(self, number: int) -> None:
        wanted = await self._wanted()
        if await self._indices.create(number, wanted, followed=True) and any(wanted.values()):
            logger.warning(
                "%s: there is no index; making %s-v%d from the first event, and searches see "
                "nothing before it is complete",
                self._indices.alias,
                self._indices.alias,
                number,
            )

    async def _show(self, states: Sequence[IndexState]) -> bool:
        """Let people read the newest index that is complete, now that they have none."""
        for state in self._followed(states):
            store, _ = self._open(state)
            progress = (await store.checkpoints(range(self._settings.partitions))).checkpoints
            if all(progress[one].position >= end for one, end in state.wanted.items()):
                await self._indices.serve(state.name)
                logger.info("%s: searches see %s now", self._indices.alias, state.name)
                return True
        return False

    async def _changed(self, states: Sequence[IndexState]) -> set[int]:
        """The partitions whose indices are others now, or have lost what they had."""
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
                    one for one, position in before.items() if found[one].position < position
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

    def _forget_all_but(self, followed: Collection[_Key]) -> None:
        for key in self._opened.keys() - set(followed):
            del self._opened[key]
