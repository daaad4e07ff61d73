"""Moves a view's alias to another index, moves it back, and deletes indices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

from models.errors import Fatal
from streams.elasticsearch.connection import connect
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.indices import IndexState, ViewIndices
from streams.views.projection import View

_REQUEST_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.2


async def cut_over(
    settings: Settings,
    view: View[Any],
    indices: ViewIndices,
    state: IndexState,
    deadline: float,
    progress: ProgressCallback,
) -> None:
    """Move the alias to a followed index, once it is in no partition behind the serving one.

    Args:
        settings: Contains the number of partitions.
        view: The view.
        indices: Its indices.
        state: The index to serve from.
        deadline: Time of `time.monotonic` at which to give up.
        progress: Receives the number of partitions that have caught up.

    Raises:
        Fatal: The index is still behind at the deadline.
    """
    numbers = range(settings.partitions)
    serving = [one.name for one in await indices.all() if one.serving and one.name != state.name]
    while True:
        # Positions cannot be compared: an index may have passed a transaction marker that the other
        # one has not. So compare the commands that their last events are from.
        old = (await indices.store(serving[0]).checkpoints(numbers)).checkpoints if serving else {}
        new = (await indices.store(state.name).checkpoints(numbers)).checkpoints
        behind = sum(
            checkpoint.command_offset > new[number].command_offset
            for number, checkpoint in old.items()
        )
        if not behind:
            await indices.serve(state.name)
            return
        progress("Catching up", len(old) - behind, len(old))
        if time.monotonic() > deadline:
            raise Fatal(
                f"{state.name} is behind in {behind} partitions and does not catch up: is a view "
                f"worker of the program that created it running (`cqrs worker {view.role}`)?"
            )
        await asyncio.sleep(_POLL_INTERVAL_S)


async def roll_back(
    settings: Settings, view: View[Any], *, timeout: float, progress: ProgressCallback
) -> IndexState:
    """Move the alias back to the newest former index, which workers kept up to date.

    Args:
        settings: Contains the addresses of the servers.
        view: The view.
        timeout: Seconds that the workers get to bring the index up to date.
        progress: As for `cut_over`.

    Returns:
        The index that serves queries now.

    Raises:
        Fatal: There is no former index, or it is still behind after `timeout`.
        Transient: Elasticsearch failed.
    """
    async with connect(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        indices = ViewIndices.from_settings(settings, client, view)
        former = [one for one in await indices.all() if one.served and not one.serving]
        if not former:
            raise Fatal(f"there is no former index of {view.name} to go back to")
        deadline = time.monotonic() + timeout
        await cut_over(settings, view, indices, former[-1], deadline, progress)
        return former[-1]


async def prune(settings: Settings, view: View[Any], names: Collection[str]) -> None:
    """Delete indices by name.

    Raises:
        Fatal: One of them serves queries; nothing was deleted.
        Transient: Elasticsearch failed; some may have been deleted.
    """
    async with connect(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        indices = ViewIndices.from_settings(settings, client, view)
        for state in await indices.all():
            if state.name in names and state.serving:
                raise Fatal(f"{state.name} serves queries now: see `cqrs views status`")
        for name in names:
            await indices.drop(name)
