"""Rebuilds a view while the old index serves queries, and then moves the alias to the new one.

A rebuild creates an index with this program's definition and projects all events into it, with its
own reader and checkpoints, independently of the workers. Then it
- compares the tally of the documents with that of the events (`Tally`),
- lets the workers follow the index: from then on they project into the old and the new one,
- and moves the alias once the new index is in no partition behind the serving one.

A rebuild that was stopped at any point continues from there when it is started again: the index
contains its checkpoints, and its aliases tell its state. Which step comes next is decided in
`views/lifecycle.py`; if a worker makes the index that a rebuild would make, or another rebuild
does, this one waits or gives up, and shows nothing that is not complete.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from aiokafka.errors import KafkaError
from elasticsearch import AsyncElasticsearch

from models.errors import Fatal, Transient
from models.messages import Event
from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connected
from streams.kafka.clients import new_producer, started
from streams.kafka.log_reader import last_positions
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views import lifecycle
from streams.views.checkpoint import IndexChanged
from streams.views.cutover import Cutover
from streams.views.dead_letters import ViewDeadLetters
from streams.views.event_reader import open_event_reader
from streams.views.feed import Feed
from streams.views.indices import ViewIndices
from streams.views.lifecycle import Create, Follow
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.situation import EventLog, IndexState
from streams.views.source import event_log, has_workers
from streams.views.status import tally_documents
from streams.views.store import ViewStore
from streams.views.writer import PartitionWriter

E = TypeVar("E", bound=Event)

_REQUEST_TIMEOUT_S = 60.0


class Rebuild(Generic[E]):
    """One rebuild of a view; call `run` once."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        log: EventLog,
        progress: ProgressCallback,
    ) -> None:
        """Prepare a rebuild; the arguments are those of `rebuild`, and the event topic."""
        self._settings = settings
        self._view = view
        self._log = log
        self._progress = progress
        self._names = TopicNames.of(settings, view.aggregate)
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._has_workers = False

    async def run(self, *, timeout: float, abandon_serving: bool) -> IndexState:
        """Build the new index and let it serve queries; see `rebuild`."""
        asked = lifecycle.Rebuild(abandon=abandon_serving)
        cutover = Cutover(self._indices, self._log, asked, timeout, self._progress)
        return await cutover.run(self._create, self._build, self._is_followed_by_workers)

    async def _create(self, action: Create) -> None:
        wanted = await last_positions(self._settings, self._names.events)
        await self._indices.create(action.number, wanted, followed=False, log=self._log)

    async def _build(self, state: IndexState) -> None:
        """Load an index, add it up, and let the workers follow it.

        If a worker follows it already, it is not loaded on.

        Raises:
            Fatal: Another rebuild is loading it.
        """
        store = self._indices.store(state.name)
        try:
            await self._load(store)
            await self._indices.finish_loading(state.name)
            await self._check(store)
            await self._load(store)  # events of the meantime, so that little is left to the workers
            if await event_log(self._settings, self._view) != self._log:
                raise Fatal(
                    f"{self._names.events} was deleted and created again while {state.name} was "
                    "loaded: run this again"
                )
            await self._indices.carry_out(Follow(state))
        except IndexChanged:
            found = (await self._indices.look(None)).find(state.key)
            if found is not None and not found.followed:
                raise Fatal(
                    f"another rebuild is at work on {state.name}: wait until it has ended"
                ) from None

    async def _is_followed_by_workers(self) -> bool:
        self._has_workers = self._has_workers or await has_workers(self._settings, self._view)
        return self._has_workers

    async def _load(self, store: ViewStore) -> None:
        """Project all events from the checkpoints to the ends that the partitions have now."""
        projector = Projector(
            store,
            self._view,
            cached_documents=self._settings.view_cache_documents,
        )
        async with (
            started(new_producer(self._settings), self._settings) as producer,
            open_event_reader(self._settings, self._names, self._view.events) as reader,
        ):
            dead_letters = ViewDeadLetters(producer, self._names.dead_views, self._view.name)
            writers = {
                number: PartitionWriter(
                    store, projector, self._view.projection, dead_letters, number, self._log
                )
                for number in range(self._log.partitions)
            }
            ends = await last_positions(self._settings, self._names.events)

            def report() -> None:
                done = sum(min(writers[one].checkpoint.position, end) for one, end in ends.items())
                self._progress("Projecting events", done, sum(ends.values()))

            await Feed(self._settings, self._names.events, reader, writers).load(ends, report)

    async def _check(self, store: ViewStore) -> None:
        """Compare the documents of the index, which nothing else writes to, with its checkpoints.

        Raises:
            IndexChanged: Somebody else does write to it.
            Fatal: Their tallies differ.
        """
        partitions = range(self._log.partitions)
        before = (await store.checkpoints(partitions)).checkpoints
        tallies = await tally_documents(self._view, store, len(partitions), self._progress)
        checkpoints = (await store.checkpoints(partitions)).checkpoints
        if checkpoints != before:
            raise IndexChanged(f"another process has projected into {store.name}")
        for number, found in enumerate(tallies):
            expected = checkpoints[number].tally
            if found != expected:
                raise Fatal(
                    f"{store.name} is not complete: of partition {number} its documents contain "
                    f"{found.events} events (checksum {found.checksum:016x}) where it was given "
                    f"{expected.events} ({expected.checksum:016x}); something else writes to it, "
                    f"or Elasticsearch has lost some: delete it (`cqrs views prune "
                    f"{self._view.name}`), then rebuild again"
                )


async def rebuild(
    settings: Settings,
    view: View[E],
    *,
    timeout: float,
    progress: ProgressCallback,
    abandon_serving: bool = False,
) -> IndexState:
    """Rebuild a view, as the module describes.

    Args:
        settings: Contains the addresses of the servers.
        view: The view.
        timeout: Seconds that the workers get to take over the new index.
        progress: Receives how far loading, checking and catching up are.
        abandon_serving: Whether the index that serves queries is lost: it is not waited for.

    Returns:
        The index that serves queries now.

    Raises:
        Fatal: The index is not complete, no worker follows it, a server refuses, or topics and
            settings do not fit.
        Transient: A server failed; a new run continues from there.
    """
    log = await event_log(settings, view)
    try:
        async with connected(settings, timeout=_REQUEST_TIMEOUT_S) as client:
            building = Rebuild(settings, client, view, log, progress)
            return await building.run(timeout=timeout, abandon_serving=abandon_serving)
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while rebuilding: {type(error).__name__}; start it again"
        ) from error
