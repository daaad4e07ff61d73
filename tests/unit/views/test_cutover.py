"""A command that lets queries read another index, while events come all the time."""

from __future__ import annotations

from typing import Any, cast

import pytest

from models.errors import Fatal
from streams.progress import ProgressCallback
from streams.views import cutover
from streams.views.cutover import Cutover
from streams.views.indices import ViewIndices
from streams.views.lifecycle import RollBack, Serve
from streams.views.situation import EventLog, Situation
from tests.unit.views.test_lifecycle import FORMER, LOG, NEXT_SERVING, but, given, progress


class Busy:
    """Two indices that workers follow: the former one always lacks the newest `lag` events."""

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.looks = 10
        self.served = ""

    async def look(self, _: EventLog) -> Situation:
        self.looks += 1
        late = progress(*[self.looks - self.lag] * 2)
        former = but(FORMER, checkpoints=late, serving=self.served == FORMER.name)
        newest = but(NEXT_SERVING, checkpoints=progress(*[self.looks] * 2), serving=not self.served)
        return given(former, newest)

    async def carry_out(self, action: Serve) -> None:
        self.served = action.index.name


async def run(indices: Busy) -> str:
    async def is_there(_: str) -> bool:
        return True

    silent = cast(ProgressCallback, lambda *_: None)
    command = Cutover(cast(ViewIndices, indices), LOG, RollBack(), 0.3, silent)
    return (await command.run(cast(Any, None), cast(Any, None), is_there)).name


async def test_it_ends_while_events_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutover, "_POLL_INTERVAL_S", 0.01)
    assert await run(Busy(lag=1)) == FORMER.name


async def test_an_index_that_stays_behind_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutover, "_POLL_INTERVAL_S", 0.01)
    indices = Busy(lag=2)
    with pytest.raises(Fatal, match="is behind in 2 partitions"):
        await run(indices)
    assert not indices.served
