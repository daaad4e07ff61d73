"""Carries out what `cqrs views rebuild`, `rollback` and `prune` ask for.

Each looks at the indices, does what `views/lifecycle.py` plans, and looks again, until that is done
or refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from models.errors import Fatal
from streams.elasticsearch.connection import connected
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.checkpoint import IndexChanged
from streams.views.indices import ViewIndices
from streams.views.lifecycle import (
    Action,
    Create,
    Delete,
    Done,
    Follow,
    Load,
    Prune,
    Rebuild,
    Refuse,
    RollBack,
    Serve,
    Strip,
    Wait,
    definition_to_follow,
    plan,
)
from streams.views.projection import View
from streams.views.situation import EventLog, IndexState
from streams.views.source import event_log, has_workers

_REQUEST_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.2


class Cutover:
    """One run of a command that lets queries read another index."""

    def __init__(
        self,
        indices: ViewIndices,
        log: EventLog,
        asked: Rebuild | RollBack,
        timeout: float,
        progress: ProgressCallback,
    ) -> None:
        """Prepare a run.

        Args:
            indices: The indices of the view.
            log: The event topic.
            asked: What was asked for.
            timeout: Seconds that the workers get to bring the index up to date.
            progress: Is told what is waited for.
        """
        self._indices = indices
        self._log = log
        self._asked = asked
        self._timeout = timeout
        self._progress = progress
        self._has_workers = False
        self._deadline: float | None = None
        self._just_before: Sequence[IndexState] = ()

    async def run(
        self,
        create: Callable[[Create], Awaitable[None]],
        load: Callable[[IndexState], Awaitable[None]],
        has_workers: Callable[[str], Awaitable[bool]],
    ) -> IndexState:
        """Look and act until queries read the index that was asked for, and return it.

        Args:
            create: Creates an index.
            load: Loads an index, and lets the workers follow it.
            has_workers: Returns whether a worker of a definition runs.

        Raises:
            Fatal: It is refused, or was still waited for after the timeout; the line says what to
                do.
            Exception: What the arguments raise.
        """
        while True:
            found = await self._indices.look(self._log)
            if not self._has_workers:
                needed = definition_to_follow(found, self._asked)
                self._has_workers = needed is None or await has_workers(needed)
            found = replace(found, has_workers=self._has_workers, just_before=self._just_before)
            self._just_before = ()
            for action in plan(found, self._asked):
                self._keep_to(action)
                if isinstance(action, Done):
                    return action.index
                if isinstance(action, Refuse):
                    raise Fatal(action.line)
                if isinstance(action, Create):
                    await create(action)
                elif isinstance(action, Load):
                    await load(action.index)
                    self._deadline = None
                elif isinstance(action, Wait):
                    await self._wait(action)
                    self._just_before = found.serving
                elif not await self._was_carried_out(action):
                    break

    def _keep_to(self, action: Action) -> None:
        """Remember the index that this is about: another one may become the newest."""
        if isinstance(action, Load | Serve | Wait) and action.index is not None:
            self._asked = replace(self._asked, target=action.index.key)

    async def _wait(self, action: Wait) -> None:
        now = time.monotonic()
        self._deadline = now + self._timeout if self._deadline is None else self._deadline
        if now >= self._deadline:
            raise Fatal(action.line)
        self._progress("Waiting for the view workers", 0, 0)
        await asyncio.sleep(_POLL_INTERVAL_S)

    async def _was_carried_out(self, action: Action) -> bool:
        """Carry an action out; return False if somebody was faster, and has changed what is so."""
        assert isinstance(action, Follow | Serve | Strip | Delete)
        try:
            await self._indices.carry_out(action)
        except IndexChanged:
            await asyncio.sleep(_POLL_INTERVAL_S)
            return False
        return True


async def roll_back(
    settings: Settings, view: View[Any], *, timeout: float, progress: ProgressCallback
) -> IndexState:
    """Move the alias back to the newest former index, which workers kept up to date.

    Args:
        settings: Contains the addresses of the servers.
        view: The view.
        timeout: Seconds that the workers get to bring the index up to date.
        progress: As for `Cutover`.

    Returns:
        The index that serves queries now.

    Raises:
        Fatal: There is no former index, it is still behind after `timeout`, it is one of another
            program of which no worker runs, or topics and settings do not fit.
        Transient: Elasticsearch failed.
    """
    log = await event_log(settings, view)
    async with connected(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        indices = ViewIndices.from_settings(settings, client, view)
        return await Cutover(indices, log, RollBack(), timeout, progress).run(
            _never, _never, partial(has_workers, settings, view)
        )


async def prunable(settings: Settings, view: View[Any]) -> list[str]:
    """Return the names of the indices that `prune` would delete.

    Raises:
        Fatal: None may be deleted, because none serves queries or one that does is not in order.
        Transient: Elasticsearch failed.
    """
    async with connected(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        found = await _deletions(ViewIndices.from_settings(settings, client, view))
        return [action.index.name for action in found]


async def prune(settings: Settings, view: View[Any], names: Collection[str]) -> None:
    """Delete indices by name.

    Raises:
        Fatal: One of them serves queries, or as for `prunable`; nothing was deleted.
        Transient: Elasticsearch failed, or the indices have changed; some may have been deleted.
    """
    async with connected(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        indices = ViewIndices.from_settings(settings, client, view)
        found = await _deletions(indices)
        for state in await indices.all():
            if state.name in names and state.serving:
                raise Fatal(f"{state.name} serves queries now: see `cqrs views status`")
        for action in found:
            if action.index.name in names:
                await indices.carry_out(action)


async def _deletions(indices: ViewIndices) -> list[Delete]:
    found = plan(await indices.look(None), Prune())
    for action in found:
        if isinstance(action, Refuse):
            raise Fatal(action.line)
    return [action for action in found if isinstance(action, Delete)]


async def _never(_: object) -> None:
    raise AssertionError("rolling back creates and loads nothing")
