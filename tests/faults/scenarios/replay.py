"""F7: the whole event topic is replayed into the live view, twice, and no document goes back."""

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
from models.events import USER_EVENTS, UserEvent
from models.messages import EventRecord, parse_event
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import in_namespace
from streams.views.projector import Projector
from streams.views.store import ViewStore
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import Failed, require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import ViewProgress, open_view_progress

_RATE = 100.0
_TIMEOUT = 30.0  # seconds that a request to Elasticsearch may take
_BETWEEN_LOOKS = 0.1  # seconds: each makes Elasticsearch refresh what has changed
_LARGEST_CHUNK = 11  # as a power of two

# The encoded events of each partition, in their order.
History = Mapping[int, Sequence[bytes]]


async def replay_events(run: Run) -> None:
    """Two deliveries at the same time, while workers decide and project what comes in.

    Each brings every partition in its order and interleaves them at random. One remembers the
    documents, as a rebuild does, and so sends all of their old versions. The other one is replaced
    now and then, as by a worker which takes over, and then reads them back.

    The versions of many documents are read all the while, and none may decrease. Elasticsearch has
    to refuse every document that is sent, for the view had these events before the replay began.
    """
    events, watched = run.pick((5_000, 500), (100_000, 2_000))
    deployed = await run.deploy("commands", "views", partitions=run.pick(3, 6))
    stream = generate(1_000_000, run.seed, rejected=0, duplicates=0)
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_view_progress(deployed, run.stack) as progress,
        connect(deployed.settings, timeout=_TIMEOUT) as client,
    ):
        index = in_namespace(deployed.settings, USER_VIEWS.index)
        read = ViewStore(client, index)
        traffic.burst(events)
        await traffic.wait_for_decided(events, timeout=300)
        history = await _history_in_view(progress)
        serving = await read.checkpoints([0])
        store = ViewStore(client, index, name=serving.name)
        watch = _Watch(read, _to_watch(run, history, watched))
        begun = time.monotonic()
        async with watch.looking():
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


class _Watch:
    """Reads the documents of some users again and again."""

    def __init__(self, store: ViewStore, users: Sequence[str]) -> None:
        self._store = store
        self._versions = dict.fromkeys(users, 1)
        self.read = 0
        """How many versions were read."""

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Look all the while; raises Failed at the end if a document has gone back."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if not looking.cancelled():
            looking.result()
        require(self.read > len(self._versions), "nobody has looked twice")

    async def _look(self) -> None:
        while True:
            documents = await self._store.fetch(self._versions)
            for user, last in self._versions.items():
                version = documents[user]["version"] if user in documents else 0
                require(version >= last, f"{user} went back from version {last} to {version}")
                self._versions[user] = version
            self.read += len(documents)
            await asyncio.sleep(_BETWEEN_LOOKS)


async def _history_in_view(progress: ViewProgress) -> History:
    """The events that there are now, as soon as the view has them."""
    ends = await progress.ends()
    await progress.catch_up()
    history: dict[int, list[bytes]] = {}
    for tp, end in ends.items():
        history[tp.partition] = [
            record.value async for records in progress.logs.read(tp, 0, end) for record in records
        ]
    return history


def _to_watch(run: Run, history: History, most: int) -> list[str]:
    """Users with more than one event, without which there is no going back."""
    versions: Counter[str] = Counter()
    for values in history.values():
        versions.update(_read(value).aggregate_id for value in values)
    users = [user for user, version in versions.items() if version > 1]
    return run.rng.sample(users, min(most, len(users)))


async def _deliver(
    run: Run, store: ViewStore, history: History, rng: random.Random, *, replaced: float
) -> int:
    """Project all events once; a new projector goes on after each chunk with that chance."""
    projector = Projector(store, USER_VIEWS.projection)
    positions = dict.fromkeys(history, 0)
    total = sum(map(len, history.values()))
    delivered = 0
    while delivered < total:
        if rng.random() < replaced:
            projector = Projector(store, USER_VIEWS.projection)
        partition = rng.choice([one for one in history if positions[one] < len(history[one])])
        begin = positions[partition]
        end = begin + int(2 ** rng.uniform(0, _LARGEST_CHUNK))
        chunk = [_read(value) for value in history[partition][begin:end]]
        projected = await projector.project(partition, chunk, _none_refused)
        require(
            projected.skipped == len(chunk),
            f"of {len(chunk)} events that the view had, {projected.written} were written again",
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
