"""What taking a partition over leaves behind when it does not come to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faust.types import TP

from streams.aggregate import TopicNames
from streams.settings import Settings
from streams.state import recovery
from streams.state.recovery import recover_partition
from streams.state.store import MemoryStore, Position, encode_position, position_key

NAMES = TopicNames("", "users")
COMMANDS = TP(NAMES.commands, 0)


class EmptyLogs:
    """A consumer of topics without any record."""

    async def start(self) -> None: ...

    def assign(self, partitions: Any) -> None: ...

    def pause(self, *partitions: Any) -> None: ...

    async def beginning_offsets(self, partitions: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)


class Stored(MemoryStore):
    """Tells whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_start_that_is_cancelled_while_its_consumer_stops_closes_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would stay locked, and the next start would take the next folder, which is empty."""
    stored, stopping = Stored(), asyncio.Event()
    stored.apply({position_key(COMMANDS): encode_position(Position(0))}, 0)

    async def no_records(_: object, partitions: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    async def open_store(*_: object) -> Stored:
        return stored

    async def nothing_to_restore(*_: object) -> None:
        pass

    async def stop(_: object) -> None:
        if not stopping.is_set():
            stopping.set()
            await asyncio.Event().wait()  # a broker that is away

    async def same_topic(*_: object) -> str:
        return "an id"

    monkeypatch.setattr(recovery, "topic_id", same_topic)
    monkeypatch.setattr(recovery, "new_consumer", lambda *_, **__: EmptyLogs())
    monkeypatch.setattr(recovery, "written_ends", no_records)
    monkeypatch.setattr(recovery, "_open_store", open_store)
    monkeypatch.setattr(recovery, "restore", nothing_to_restore)
    monkeypatch.setattr(recovery, "stop", stop)
    start = asyncio.create_task(recover_partition(Settings(), NAMES, COMMANDS))
    await stopping.wait()
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    assert start.cancelled()
    assert stored.closed
