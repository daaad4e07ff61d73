"""Adds a view to the app of a view worker."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar

from aiokafka.errors import KafkaError
from faust.types import TP, TopicT

from models.errors import Fatal, PartitionFatal, Transient
from models.messages import Event
from streams.aggregate import TopicNames
from streams.concurrency import cancel
from streams.elasticsearch.connection import connect
from streams.kafka.lasting_producer import LastingProducer
from streams.kafka.log_reader import last_positions
from streams.kafka.refusal import Unreachable
from streams.kafka.rights import view_worker
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import topic_specs
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import open_event_reader
from streams.views.follower import ViewFollower
from streams.views.partition import ViewPartition
from streams.views.projection import View
from streams.views.situation import EventLog
from streams.worker.app import StreamApp
from streams.worker.logs import log_defect

E = TypeVar("E", bound=Event)

_REQUEST_TIMEOUT_S = 30.0


def add_view(app: StreamApp, view: View[E]) -> TopicT:
    """Let `app` project the events of an aggregate into a view.

    Returns:
        The channel of the event topic, for the agent that passes its chunks on.
    """
    worker = _ViewWorker(app, view)
    app.on_open(worker.open)
    names = worker.names
    rights = view_worker(names, app.conf.id)
    return app.input(names.events, topic_specs(app.settings, names), rights, worker.new_partition)


class _ViewWorker(Generic[E]):
    """Resources that the partitions of one view share in one worker."""

    def __init__(self, app: StreamApp, view: View[E]) -> None:
        self.names = TopicNames.of(app.settings, view.aggregate)
        self._app = app
        self._view = view

    async def open(self, resources: AsyncExitStack) -> None:
        """Open the clients and watch the indices, until `resources` is closed."""
        app, settings, view = self._app, self._app.settings, self._view
        client = await resources.enter_async_context(connect(settings, timeout=_REQUEST_TIMEOUT_S))
        self._reader = await resources.enter_async_context(
            open_event_reader(settings, self.names, view.events)
        )
        producer = await resources.enter_async_context(LastingProducer(settings))
        self._dead_letters = ViewDeadLetters(producer, self.names.dead_views, view.name)
        self._follower = ViewFollower(
            settings,
            client,
            view,
            await self._event_log(),
            self.names.events,
            self._reader,
            self._dead_letters,
            self._last_positions,
        )
        watching = asyncio.create_task(_watch(app, self._follower.watch(self._restart)))
        resources.push_async_callback(cancel, watching)  # it uses all of the above until its end

    def new_partition(self, tp: TP) -> ViewPartition[E]:
        """Create the processor of one partition; call `open` first."""
        return ViewPartition(
            self._app, self._view.name, self._reader, self._follower, self._dead_letters, tp
        )

    async def _event_log(self) -> EventLog:
        """Return the event topic; the app has checked its number of partitions."""
        settings = self._app.settings
        try:
            found = await topic_id(settings, self.names.events)
        except KafkaError as error:
            raise Fatal(
                f"Kafka did not say which topic {self.names.events} is: {type(error).__name__}"
            ) from error
        return EventLog(self._app.cluster, found, settings.partitions)

    async def _last_positions(self) -> Mapping[int, int]:
        try:
            return await last_positions(self._app.settings, self.names.events)
        except (Unreachable, PartitionFatal) as error:  # an outage, or a damaged log: waited for
            raise Transient(str(error)) from error

    async def _restart(self, partitions: Collection[int]) -> None:
        await self._app.partitions.restart(TP(self.names.events, number) for number in partitions)


async def _watch(app: StreamApp, watching: Coroutine[Any, Any, None]) -> None:
    try:
        await watching
    except Fatal as error:
        app.fail(error)
    except Exception as error:
        log_defect("watching the indices", error)
        app.fail(Fatal(f"watching the indices failed: {type(error).__name__}; the log says where"))
