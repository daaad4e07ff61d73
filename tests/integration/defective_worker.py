"""A command worker with the defect that the variable `DEFECT` of its environment names.

It is run as ``faust -A tests.integration.defective_worker worker`` by the tests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from faust.types import StreamT

from agents.user_commands import user_command_bus
from agents.users import COMMAND_WORKER, USERS
from deploy.waiting import wait_until
from models.commands import DeactivateUser
from models.messages import Command, Event
from models.user import User
from streams.buses import CommandBus
from streams.commands.repository import EventSourcedRepository
from streams.commands.wiring import add_aggregate
from streams.worker import transport
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from streams.worker.process import worker_settings

DEFECT = os.environ["DEFECT"]


async def never(*_: object, **__: object) -> None:
    """Does not return."""
    await asyncio.Event().wait()


def bus(users: EventSourcedRepository[User]) -> CommandBus[Sequence[Event]]:
    bus = user_command_bus(users)
    inner = bus.dispatch

    async def dispatch(command: Command) -> Sequence[Event]:
        if DEFECT == "the handler hangs":
            await never()
        if DEFECT == "the handler blocks":
            logging.getLogger("agents").info("blocking")
            while True:
                pass
        if DEFECT == "a deactivation raises all that is known" and isinstance(
            command, DeactivateUser
        ):
            raise ValueError(repr(users.load(command.aggregate_id)))
        return await inner(command)

    bus.dispatch = dispatch  # type: ignore[method-assign]
    return bus


if DEFECT == "a command comes before a rebalance ends":
    transport.FETCH_WAIT_S = 60.0  # so that a read is under way

app = StreamApp(COMMAND_WORKER, worker_settings())
commands = add_aggregate(app, USERS, bus)


@app.agent(commands)
async def decide(chunks: StreamT[Chunk]) -> None:
    async for chunk in chunks:
        if DEFECT == "the agent drops chunks":
            continue
        if DEFECT == "the agent takes no more chunks":
            await never()
        if DEFECT == "the agent raises":
            raise KeyError
        app.partitions.submit(chunk)


def read_before_the_rebalance_ends(thread: Any) -> None:
    """Let the next rebalance seek, and then wait until the read that is under way has a chunk."""
    consumer, drain, taken = app._chunk_consumer, thread._drain, threading.Event()
    seek = consumer.perform_seek

    def observed_drain(*arguments: Any) -> list[Chunk]:
        chunks: list[Chunk] = drain(*arguments)
        if chunks:
            taken.set()
        return chunks

    async def seek_and_wait() -> None:
        await seek()
        logging.getLogger("agents").info("has sought")
        await wait_until(taken.is_set)

    thread._drain = observed_drain
    consumer.perform_seek = seek_and_wait  # type: ignore[method-assign]


@app.task  # type: ignore[untyped-decorator]
async def break_the_consumer() -> None:
    """From outside, once it has partitions."""
    thread: Any = app._chunk_consumer._thread
    await wait_until(app.partitions.positions)
    if DEFECT == "the fetching ends":
        thread.thread_loop.call_soon_threadsafe(thread._consumer._fetcher._fetch_task.cancel)
    if DEFECT == "the coordination ends":
        thread.thread_loop.call_soon_threadsafe(
            thread._consumer._coordinator._coordination_task.cancel
        )
    if DEFECT == "a command comes before a rebalance ends":
        read_before_the_rebalance_ends(thread)
        await app.rejoin()
    if DEFECT == "a rebalance does not end":
        app.partitions.revoke = never  # type: ignore[method-assign]
        await app.rejoin()
