"""How a view joins the app of a view worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from faust.types import TP, TopicT

from models.messages import Event, EventRecord
from streams.aggregate import Names
from streams.app import StreamApp
from streams.event_reader import open_event_reader
from streams.kafka import new_producer, started
from streams.projector import Projector
from streams.topics import topic_specs
from streams.view_index import Document, ViewIndex
from streams.view_partition import ViewPartition
from streams.view_store import open_view_store

E = TypeVar("E", bound=Event)

_TIMEOUT = 30.0  # seconds that one request to Elasticsearch may take


def add_view(
    app: StreamApp,
    aggregate: str,
    events: Mapping[str, type[E]],
    index: ViewIndex,
    project: Callable[[Document | None, EventRecord[E]], Document],
) -> TopicT:
    """Let ``app`` project the events of an aggregate (its name) into a view.

    Returns the channel of its event topic, for an agent that hands on the chunks.
    """
    settings = app.settings
    names = Names(settings.namespace, aggregate)
    new_partition: Callable[[TP], ViewPartition[E]]

    async def open_clients(resources: AsyncExitStack) -> None:
        nonlocal new_partition
        store = await resources.enter_async_context(
            open_view_store(settings, index, timeout=_TIMEOUT)
        )
        reader = await resources.enter_async_context(open_event_reader(settings, names, events))
        producer = await resources.enter_async_context(started(new_producer(settings), settings))
        projector = Projector(store, project, cached_documents=settings.view_cache_documents)

        def make(tp: TP) -> ViewPartition[E]:
            return ViewPartition(app, names, reader, store, projector, producer, tp)

        new_partition = make

    app.on_open(open_clients)
    return app.input(names.events, topic_specs(settings, names), lambda tp: new_partition(tp))
