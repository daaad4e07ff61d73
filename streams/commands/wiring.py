"""How an aggregate joins the app of a command worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from faust.types import TP, TopicT

from streams.aggregate import Aggregate, TopicNames
from streams.commands.chunk_metrics import declare
from streams.commands.decider import DecisionBus
from streams.commands.partition import CommandPartition
from streams.commands.repository import EventSourcedRepository
from streams.encryption.key_ring import check_master_key
from streams.kafka.rights import command_worker
from streams.kafka.topics import topic_specs
from streams.state.table import StateTable
from streams.worker.app import StreamApp

S = TypeVar("S")


def add_aggregate(
    app: StreamApp,
    aggregate: Aggregate[S],
    new_bus: Callable[[EventSourcedRepository[S]], DecisionBus],
) -> TopicT:
    """Let ``app`` decide the commands of one aggregate with the handlers of ``new_bus``.

    Returns:
        The channel of its command topic, for an agent that passes the chunks on.
    """
    declare(aggregate)
    names = TopicNames.of(app.settings, aggregate.name)
    table = StateTable(app, f"{aggregate.name}-state", names.changelog)

    def new_partition(tp: TP) -> CommandPartition[S]:
        return CommandPartition(app, aggregate, table, new_bus, tp)

    async def check_keys(_: AsyncExitStack) -> None:
        await check_master_key(app.settings, names)

    app.on_open(check_keys)
    rights = command_worker(names, app.conf.id)
    return app.input(names.commands, topic_specs(app.settings, names), rights, new_partition)
