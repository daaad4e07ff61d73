"""F7: all events are replayed into the live view, twice, and no document gets an older version."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import orjson

from agents.user_views import USER_VIEWS
from deploy.samples.commands import generate
from deploy.waiting import Turns
from models.events import USER_EVENTS, UserEvent
from models.messages import EventRecord, parse_event
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import in_namespace
from streams.views.projector import Projector
from streams.views.reader import ViewReader
from streams.views.store import ViewStore
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import Failed, require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_RATE = 100.0  # commands per second
_REQUEST_TIMEOUT_S = 30.0
_READ_INTERVAL_S = 0.1  # each read makes Elasticsearch refresh what has changed
_MAX_CHUNK_LOG2 = 11

# Encoded events by partition, in order.
History = Mapping[int, Sequence[bytes]]


async def replay_events(run: Run) -> None:
    """Deliver all events twice side by side, while workers decide and project new commands.

    Each delivery keeps the order within partitions and interleaves the partitions at random. One
    keeps the documents in memory, as a rebuild does, and so sends all of their old versions. The
    other one's projector is replaced now and then, as by a worker that takes over, and then reads
    the documents back.

    Meanwhile the versions of many documents are read, and none may decrease. Elasticsearch must
    refuse every document, because the view had these events before the replay began.
    """
    events, watched = run.pick((5_000, 500), (100_000, 2_000))
    deployed = await run.deploy("commands", "views", partitions=run.pick(3, 6))
    stream = generate(1_000_000, run.seed, rejected=0, duplicates=0)
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_view_positions(deployed, run.stack) as view,
        connect(deployed.settings, timeout=_REQUEST_TIMEOUT_S) as client,
    ):
        index = in_namespace(deployed.settings, USER_VIEWS.index)
        read = ViewReader(client, index.alias)
        traffic.burst(events)
        await traffic.wait_for_decided(events, timeout=300)
        history = await _history_in_view(view)
        serving = await read.checkpoints([0])
        store = ViewStore(client, index, name=serving.name)
        watch = _VersionWatch(read, _to_watch(run, history, watched))
        begun = time.monotonic()
        async with watch.reading():
            seeds = [run.rng.random() for _ in range(2)]
            replayed = await gather_or_cancel(
                _deliver(run, store, history, random.Random(seeds[0]), replaced=0.0),
                _deliver(run, store, history, random.Random(seeds[1]), replaced=0.1),
            )
        seconds = time.monotonic() - begun
        await traffic.finish()
    run.result.faults += len(replayed)
    await run.verify(deployed, sent=traffic.sent)
    require(min(replayed) >= events, f"only {min(replayed)} events were replayed")
    run.result.figures |= {
        "events replayed": sum(replayed),
        "events replayed per second": round(sum(replayed) / seconds),
        "documents watched": watched,
        "versions read meanwhile": watch.read,
    }


class _VersionWatch:
    """Reads the documents of some users repeatedly."""

    def __init__(self, view: ViewReader, users: Sequence[str]) -> None:
        self._view = view
        self._versions = dict.fromkeys(users, 1)
        self.read = 0
        """Number of versions that were read."""

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read during the block.

        Raises:
            Failed: at the end, if the version of a document has decreased.
        """
        reading = asyncio.create_task(self._keep_reading())
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if not reading.cancelled():
            reading.result()
        require(self.read > len(self._versions), "no document was read twice")

    async def _keep_reading(self) -> None:
        async for _ in Turns(_READ_INTERVAL_S):
            documents = await self._view.fetch(self._versions)
            for user, last in self._versions.items():
                version = documents[user]["version"] if user in documents else 0
                require(version >= last, f"{user} went back from version {last} to {version}")
                self._versions[user] = version
            self.read += len(documents)


async def _history_in_view(view: ViewPositions) -> History:
    """Return all events that exist now, as soon as the view has them."""
    ends = await view.ends()
    await view.catch_up()
    history: dict[int, list[bytes]] = {}
    for tp, end in ends.items():
        history[tp.partition] = [
            record.value async for records in view.logs.read(tp, 0, end) for record in records
        ]
    return history


def _to_watch(run: Run, history: History, most: int) -> list[str]:
    """Choose users with more than one event: only their documents can get an older version."""
    versions = _versions(history)
    users = [user for user, version in versions.items() if version > 1]
    return run.rng.sample(users, min(most, len(users)))


def _versions(history: History) -> Counter[str]:
    """Count the events of each user."""
    versions: Counter[str] = Counter()
    for values in history.values():
        versions.update(_read(value).aggregate_id for value in values)
    return versions


def _newest(chunk: Sequence[EventRecord[UserEvent]], versions: Mapping[str, int]) -> int:
    """Count the events of users whose last one is in the chunk: they may be written again."""
    last = {one.aggregate_id for one in chunk if one.sequence == versions[one.aggregate_id]}
    return sum(one.aggregate_id in last for one in chunk)


async def _deliver(
    run: Run, store: ViewStore, history: History, rng: random.Random, *, replaced: float
) -> int:
    """Project all events once; `replaced` is the chance of a new projector before a chunk."""
    versions = _versions(history)
    projector = Projector(store, USER_VIEWS)
    positions = dict.fromkeys(history, 0)
    total = sum(map(len, history.values()))
    delivered = 0
    while delivered < total:
        if rng.random() < replaced:
            projector = Projector(store, USER_VIEWS)
        partition = rng.choice([one for one in history if positions[one] < len(history[one])])
        begin = positions[partition]
        end = begin + int(2 ** rng.uniform(0, _MAX_CHUNK_LOG2))
        chunk = [_read(value) for value in history[partition][begin:end]]
        projected = await projector.project(partition, chunk, _none_refused)
        older = len(chunk) - _newest(chunk, versions)
        require(
            projected.skipped >= older,
            f"of {older} events whose documents are newer, {older - projected.skipped} were "
            "written again",
        )
        positions[partition] += len(chunk)
        delivered += len(chunk)
        run.say(delivered, total)
    return delivered


async def _none_refused(refused: Sequence[object]) -> None:
    raise Failed(f"{len(refused)} documents that the view had were refused")


def _read(value: bytes) -> EventRecord[UserEvent]:
    return parse_event(orjson.loads(value), USER_EVENTS)


F7 = Scenario("F7", "all events replayed into the live view, twice", replay_events)
