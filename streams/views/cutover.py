"""Moving the alias to another index, back, and deleting former indices."""

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

_REQUEST_TIMEOUT_S = 60.0  # of one request to Elasticsearch
_POLL_INTERVAL_S = 0.2


async def cut_over(
    settings: Settings,
    view: View[Any],
    indices: ViewIndices,
    state: IndexState,
    deadline: float,
    progress: ProgressCallback,
) -> None:
    """Have people read this followed index, as soon as it is nowhere behind the one they read.

    Raises:
        Fatal: It is not by the deadline (of `time.monotonic`).
    """
    numbers = range(settings.partitions)
    serving = [one.name for one in await indices.all() if one.serving and one.name != state.name]
    while True:
        # The position of one may be behind a marker that the other has not passed yet. What counts
        # is which commands their events are of.
        read = (await indices.store(serving[0]).checkpoints(numbers)).checkpoints if serving else {}
        new = (await indices.store(state.name).checkpoints(numbers)).checkpoints
        behind = sum(
            one.command_offset > new[number].command_offset for number, one in read.items()
        )
        if not behind:
            await indices.serve(state.name)
            return
        progress("Catching up", len(read) - behind, len(read))
        if time.monotonic() > deadline:
            raise Fatal(
                f"{state.name} is behind in {behind} partitions and does not catch up: is a view "
                f"worker of the program that made it running (`cqrs worker {view.role}`)?"
            )
        await asyncio.sleep(_POLL_INTERVAL_S)


async def roll_back(
    settings: Settings, view: View[Any], *, timeout: float, progress: ProgressCallback
) -> IndexState:
    """Have people read the index again that they read before; it has been followed all the while.

    Returns:
        That index.

    Raises:
        Fatal: There is none, or nobody follows it.
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
    """Delete these indices, which nobody reads.

    Raises:
        Fatal: People read one of them.
    """
    async with connect(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        indices = ViewIndices.from_settings(settings, client, view)
        for state in await indices.all():
            if state.name in names and state.serving:
                raise Fatal(f"people read {state.name} by now: look at `cqrs views status`")
        for name in names:
            await indices.drop(name)
