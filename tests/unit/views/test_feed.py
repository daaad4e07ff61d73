"""How long the load of an index waits for events; the rest is tested on real servers."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition

from models.errors import Transient
from streams.settings import Settings
from streams.views import feed as feeding
from streams.views.checkpoint import Checkpoint
from streams.views.feed import Feed


class Silent:
    """A consumer whose broker is away: aiokafka raises nothing then."""

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    def seek(self, _tp: TopicPartition, position: int) -> None: ...

    def resume(self, _tp: TopicPartition) -> None: ...

    async def getmany(self, *_: Any, **__: Any) -> dict[Any, Any]:
        return {}


class Writer:
    """A writer whose index has everything before position 3."""

    checkpoint = Checkpoint(position=3)

    async def start(self) -> int:
        return self.checkpoint.position


async def test_a_load_that_hears_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "_SILENCE_TIMEOUT_S", 0.0)
    feed = Feed[Any](Settings(), "users.events.v1", cast(Any, None), {1: cast(Any, Writer())})
    with pytest.raises(Transient, match=r"v1\[1\]: nothing came after position 3 for 0 s"):
        await feed._partition(cast(Any, Silent()), 1, 4, lambda _: None)
