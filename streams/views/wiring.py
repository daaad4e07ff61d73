"""How a view joins the app of a view worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from faust.types import TP, TopicT

from models.errors import Fatal
from models.messages import Event
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connect
from streams.kafka.clients import new_producer, started
from streams.kafka.log_reader import last_positions
from streams.kafka.topics import topic_specs
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import open_event_reader
from streams.views.follower import ViewFollower
from streams.views.partition import ViewPartition
from streams.views.projection import View
from streams.worker.app import StreamApp
from streams.worker.logs import log_defect

E = TypeVar("E", bound=Event)

_TIMEOUT = 30.0  # seconds that one request to Elasticsearch may take


def add_view(app: StreamApp, view: View[E]) -> TopicT:
    """Let ``app`` project the events of an aggregate into a view.

    Returns the channel of its event topic, for an agent that hands on the chunks.
    """
    settings = app.settings
    names = TopicNames.of(settings, view.aggregate)
    new_partition: Callable[[TP], ViewPartition[E]]

    async def wanted() -> Mapping[int, int]:
        return await last_positions(settings, names.events)

    async def restart(partitions: Collection[int]) -> None:
        await app.partitions.restart(TP(names.events, number) for number in partitions)

    async def open_clients(resources: AsyncExitStack) -> None:
        nonlocal new_partition
        client = await resources.enter_async_context(connect(settings, timeout=_TIMEOUT))
        reader = await resources.enter_async_context(
            open_event_reader(settings, names, view.events)
        )
        producer = await resources.enter_async_context(started(new_producer(settings), settings))
        letters = ViewDeadLetters(producer, names.dead_views, view.name)
        follower = ViewFollower(settings, client, view, app.cluster, letters, wanted)

        def make(tp: TP) -> ViewPartition[E]:
            return ViewPartition(app, reader, follower, letters, tp)

        new_partition = make
        watching = asyncio.create_task(_watch(app, follower.watch(restart)))
        resources.callback(watching.cancel)

    app.on_open(open_clients)
    return app.input(names.events, topic_specs(settings, names), lambda tp: new_partition(tp))


async def _watch(app: StreamApp, watching: Coroutine[Any, Any, None]) -> None:
    try:
        await watching
    except Fatal as error:
        app.fail(error)
    except Exception as error:
        log_defect("watching the indices", error)
        app.fail(Fatal(f"watching the indices failed: {type(error).__name__}; the log says where"))
