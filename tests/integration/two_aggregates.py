"""A worker app with two aggregates: users, and counters, which nothing outside this file knows.

It is run as ``faust -A tests.integration.two_aggregates worker`` by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from faust.types import StreamT
from typing_extensions import Self

from agents.user_commands import user_command_bus
from agents.users import USERS
from models.errors import Rejected
from models.messages import Command, Event
from streams.aggregate import Aggregate
from streams.buses import CommandBus
from streams.commands.repository import EventSourcedRepository
from streams.commands.wiring import add_aggregate
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from streams.worker.process import worker_settings


class Count(Command):
    """Counts up; more than 10 at once is rejected, 0 breaks the handler after it has saved."""

    by: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter went up."""

    personal: ClassVar[tuple[str, ...]] = ()
    erases: ClassVar[bool] = False

    by: int

    @property
    def is_shredded(self) -> bool:
        return False

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["by"])


def add(total: int | None, event: Counted, at: datetime) -> int:
    return (total or 0) + event.by


COUNTERS = Aggregate[int](
    name="counters",
    commands={"Count": Count},
    events={"Counted": Counted},
    state=int,
    evolve=add,
)


def counter_bus(counters: EventSourcedRepository[int]) -> CommandBus[Sequence[Event]]:
    async def count(command: Count) -> Sequence[Event]:
        if command.by > 10:
            raise Rejected("too-many", "At most 10 at once")
        events = (Counted(command.by),)
        counters.save(command, events)
        if command.by == 0:
            raise ZeroDivisionError
        return events

    bus = CommandBus[Sequence[Event]]()
    bus.register(Count, count)
    return bus


app = StreamApp("everything", worker_settings())
counters = add_aggregate(app, COUNTERS, counter_bus)
users = add_aggregate(app, USERS, user_command_bus)


@app.agent(counters)
async def decide_counters(chunks: StreamT[Chunk]) -> None:
    async for chunk in chunks:
        app.partitions.submit(chunk)


@app.agent(users)
async def decide_users(chunks: StreamT[Chunk]) -> None:
    async for chunk in chunks:
        app.partitions.submit(chunk)
