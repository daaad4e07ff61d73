"""Rebuilds a view while the old index serves queries, and then moves the alias to the new one.

A rebuild creates an index with this program's definition and projects all events into it, with its
own reader and checkpoints, independently of the workers. Then it
- compares the tally of the documents with that of the events (`Tally`),
- looks for personal data that could not be read although nobody erased it (`Shredded`),
- lets the workers follow the index: from then on they project into the old and the new one,
- and moves the alias once the new index is in no partition behind the serving one.

A rebuild that was stopped at any point continues from there when it is started again: the index
contains its checkpoints, and its aliases tell its state. Which step comes next is decided in
`views/lifecycle.py`; if a worker makes the index that a rebuild would make, or another rebuild
does, this one waits or gives up, and shows nothing that is not complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from aiokafka.errors import KafkaError
from elasticsearch import AsyncElasticsearch

from models.errors import Fatal, Transient
from models.messages import Event
from streams.aggregate import TopicNames
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connected
from streams.encryption.keys import master_keys
from streams.kafka.log_reader import last_positions
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views import lifecycle
from streams.views.checkpoint import IndexChanged
from streams.views.cutover import Cutover
from streams.views.helpers import Helper, Report, Work, open_helpers
from streams.views.indices import ViewIndices
from streams.views.lifecycle import Create, Follow
from streams.views.loading import (
    REQUEST_TIMEOUT_S,
    find_shredded,
    load_partitions,
    tally_part,
)
from streams.views.projection import View
from streams.views.situation import EventLog, IndexState
from streams.views.source import event_log, has_workers
from streams.views.store import ViewStore
from streams.views.tally import total

E = TypeVar("E", bound=Event)
T = TypeVar("T")

_Shredded = Sequence[Collection[str]]
"""By process, ids of whose personal data could not be read, and who were not erased so far."""


class Rebuild(Generic[E]):
    """One rebuild of a view; call `run` once."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncElasticsearch,
        view: View[E],
        log: EventLog,
        progress: ProgressCallback,
        processes: int,
        abandon_serving: bool,
    ) -> None:
        """Prepare a rebuild; the arguments are those of `rebuild`, and the event topic."""
        self._settings = settings
        self._view = view
        self._log = log
        self._progress = progress
        self._processes = min(processes, log.partitions)
        self._names = TopicNames.of(settings, view.aggregate)
        self._indices = ViewIndices.from_settings(settings, client, view)
        self._abandon = abandon_serving
        self._needs_keys = view.shows_personal_data and master_keys(settings) is not None

    async def run(self, *, timeout: float) -> IndexState:
        """Build the new index and let it serve queries; see `rebuild`."""
        asked = lifecycle.Rebuild(abandon=self._abandon)
        cutover = Cutover(self._indices, self._log, asked, timeout, self._progress)
        following = partial(has_workers, self._settings, self._view)
        return await cutover.run(self._create, self._build, following)

    async def _create(self, action: Create) -> None:
        wanted = await last_positions(self._settings, self._names.events)
        await self._indices.create(action.number, wanted, followed=False, log=self._log)

    async def _build(self, state: IndexState) -> None:
        """Load an index, add it up, and let the workers follow it.

        If a worker follows it already, it is not loaded on.

        Raises:
            Fatal: Another rebuild is loading it, or Elasticsearch has answered of an old copy.
        """
        store = self._indices.store(state.name)
        try:
            async with open_helpers(self._processes - 1) as helpers:
                shredded = await self._find_shredded(store, helpers)
                shredded = await self._load(store, helpers, shredded)
                await self._indices.finish_loading(state.name)
                fault = await self._check(store, helpers)
                if fault is None:
                    # events of the meantime, so that little is left to the workers
                    still = await self._load(store, helpers, shredded)
                    fault = self._lost_data(state, shredded, still)
                if fault is not None:
                    raise Fatal(f"{fault}: {await self._give_up(state)}")
            if await event_log(self._settings, self._view) != self._log:
                raise Fatal(
                    f"{self._names.events} was deleted and created again while {state.name} was "
                    "loaded: run this again"
                )
            await self._indices.carry_out(Follow(state))
        except IndexChanged as error:
            found = (await self._indices.look(None)).find(state.key)
            if found is not None and not found.followed:
                raise Fatal(
                    f"{error}: if another rebuild is at work on {state.name}, wait until it has "
                    "ended; else run this again"
                ) from None

    async def _give_up(self, state: IndexState) -> str:
        """Delete an index that a worker would follow and show; return what to do next."""
        found = (await self._indices.look(None)).find(state.key)
        if found is None or found.followed or found.serving:
            return (
                f"a worker follows it already; rebuild again, then `cqrs views prune` {state.name}"
            )
        await self._indices.drop(state.name)
        return "it was deleted, run this again"

    async def _find_shredded(self, store: ViewStore, helpers: Sequence[Helper]) -> _Shredded:
        """Return whose personal data cannot be read in what a run that was stopped has loaded."""
        nobody: _Shredded = [()] * self._processes
        if not self._needs_keys:
            return nobody
        found = (await store.checkpoints(range(self._log.partitions))).checkpoints
        positions = {number: one.position for number, one in found.items()}
        if not any(positions.values()):
            return nobody
        return await _at_once(
            find_shredded,
            [(self._settings, self._view, share) for share in self._shares(positions)],
            helpers,
            self._reporting("Reading again what is loaded", positions),
        )

    async def _load(
        self, store: ViewStore, helpers: Sequence[Helper], before: _Shredded
    ) -> _Shredded:
        """Project all events from the checkpoints to the ends that the partitions have now.

        Returns:
            Whose personal data could not be read in all events, if `before` is that of the events
            before the checkpoints.
        """
        ends = await last_positions(self._settings, self._names.events)
        return await _at_once(
            load_partitions,
            [
                (self._settings, self._view, store.name, self._log, share, ids)
                for share, ids in zip(self._shares(ends), before, strict=True)
            ],
            helpers,
            self._reporting("Projecting events", ends),
        )

    def _lost_data(self, state: IndexState, before: _Shredded, after: _Shredded) -> str | None:
        """Return what was lost; None if nothing was.

        A key is destroyed in the transaction of the event that erases its aggregate. The second
        load has all events that were there when it began. So an aggregate was not erased if its
        data could not be read by the first one, and the second one did not find that event.
        """
        lost = sorted(set[str]().union(*before) & set[str]().union(*after))
        if self._abandon or not (self._needs_keys and lost):
            return None
        some = ", ".join(lost[:3]) + (" ..." if len(lost) > 3 else "")
        return (
            f"{state.name} shows nothing of {len(lost)} {self._view.aggregate} that were not "
            f"erased and cannot be read ({some}): their keys were lost or damaged. Restore the "
            f"keys topic {self._names.keys} from a backup; or, if that is impossible, give up what "
            "the former index has of them (--abandon-serving)"
        )

    def _shares(self, of_partitions: Mapping[int, int]) -> list[Mapping[int, int]]:
        """Return what each process gets of something that there is of each partition."""
        return [
            {
                number: of_partitions[number]
                for number in range(share, self._log.partitions, self._processes)
            }
            for share in range(self._processes)
        ]

    def _reporting(self, what: str, ends: Mapping[int, int]) -> Report:
        reached: dict[int, int] = {}

        def report(number: int, position: int) -> None:
            reached[number] = min(position, ends[number])
            self._progress(what, sum(reached.values()), sum(ends.values()))

        return report

    async def _check(self, store: ViewStore, helpers: Sequence[Helper]) -> str | None:
        """Compare the documents of the index, which nothing else writes to, with its checkpoints.

        Returns:
            How their tallies differ; None if they do not.

        Raises:
            IndexChanged: Somebody else does write to it.
        """
        partitions = range(self._log.partitions)
        before = (await store.checkpoints(partitions)).checkpoints
        documents = await store.count()
        done: dict[int, int] = {}

        def report(number: int, read: int) -> None:
            done[number] = read
            self._progress(f"Adding up {store.name}", sum(done.values()), documents)

        async with store.point_in_time() as point:
            found = await _at_once(
                tally_part,
                [
                    (
                        self._settings,
                        self._view,
                        store.name,
                        len(partitions),
                        point.part(one, self._processes),
                    )
                    for one in range(self._processes)
                ],
                helpers,
                report,
            )
        checkpoints = (await store.checkpoints(partitions)).checkpoints
        if checkpoints != before:
            raise IndexChanged(f"another process has projected into {store.name}")
        for number, tallies in enumerate(zip(*found, strict=True)):
            sum_of_slices, expected = total(tallies), checkpoints[number].tally
            if sum_of_slices != expected:
                return (
                    f"{store.name} is not complete: of partition {number} its documents contain "
                    f"{sum_of_slices.events} events (checksum {sum_of_slices.checksum:016x}) where "
                    f"it was given {expected.events} ({expected.checksum:016x}); something else "
                    "writes to it, or Elasticsearch has lost some"
                )
        return None


async def _at_once(
    work: Work[T],
    shares: Sequence[tuple[Any, ...]],
    helpers: Sequence[Helper],
    report: Report,
) -> list[T]:
    """Do the work with the arguments of each share: the first one here, the others by helpers."""
    first, *others = shares
    return await gather_or_cancel(
        work(*first, report=report),
        *(
            helper.run(work, *share, report=report)
            for helper, share in zip(helpers, others, strict=True)
        ),
    )


async def rebuild(
    settings: Settings,
    view: View[E],
    *,
    timeout: float,
    progress: ProgressCallback,
    abandon_serving: bool = False,
    processes: int = 1,
) -> IndexState:
    """Rebuild a view, as the module describes.

    Args:
        settings: Contains the addresses of the servers.
        view: The view.
        timeout: Seconds that the workers get to take over the new index.
        progress: Receives how far loading, checking and catching up are.
        abandon_serving: Whether the index that serves queries is lost: it is not waited for, and
            the new one is shown also if it lacks personal data whose keys were lost.
        processes: Number of processes that load and check, this one included; at most one for each
            partition.

    Returns:
        The index that serves queries now.

    Raises:
        Fatal: The index is not complete, keys were lost, no worker follows it, a server refuses, or
            topics and settings do not fit.
        Transient: A server failed; a new run continues from there.
    """
    log = await event_log(settings, view)
    try:
        async with connected(settings, timeout=REQUEST_TIMEOUT_S) as client:
            building = Rebuild(settings, client, view, log, progress, processes, abandon_serving)
            return await building.run(timeout=timeout)
    except KafkaError as error:
        raise Transient(
            f"Kafka failed while rebuilding: {type(error).__name__}; start it again"
        ) from error
