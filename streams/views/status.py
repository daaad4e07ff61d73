"""What the indices of a view are and how far they are, for people and for `verify`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.structs import TopicPartition

from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connect
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.topics import partitions_of
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.checkpoint import Checkpoint as Reached
from streams.views.indices import IndexState, ViewIndices
from streams.views.projection import View
from streams.views.store import ViewStore
from streams.views.tally import DocumentTallies, Tally

_TIMEOUT = 60.0  # seconds for one request


@dataclass(frozen=True)
class IndexStatus:
    """One index.

    Attributes:
        name: Of the index.
        state: `serving`, `followed` or `building`; see `view_indices`.
        of_this_program: Whether this program would make the same documents.
        positions: How far it is in each partition of the event topic.
        behind: Positions of the event topic that it has not got yet. Markers of transactions are
            among them, so that it may say a few more than there are events.
        seconds: How old the oldest event is that it has not got; 0.0 if it has all.
        documents: How many it has, as of the last refresh.
        complete: Whether its documents add up to the events it says it has, checksum and all; None
            if that was not asked, or cannot be said: it moved meanwhile, or is amid events.
    """

    name: str
    state: str
    of_this_program: bool
    positions: Mapping[int, int]
    behind: int
    seconds: float
    documents: int
    complete: bool | None


async def status_of(
    settings: Settings, view: View[Any], *, check: bool, progress: ProgressCallback
) -> list[IndexStatus]:
    """All indices of a view, the oldest first.

    Args:
        settings: Where the servers are.
        view: Which one.
        check: Whether to read all documents and add them up.
        progress: Is told about that.

    Raises:
        Transient, Fatal: A server failed, or says no.
    """
    events = TopicNames.of(settings, view.aggregate).events
    partitions = partitions_of(settings, events)
    async with (
        connect(settings, timeout=_TIMEOUT) as client,
        open_logs(settings, partitions) as logs,
    ):
        indices = ViewIndices.from_settings(settings, client, view)
        ends = await logs.readable_ends(partitions)
        return [
            await _status(view, indices, state, logs, ends, progress if check else None)
            for state in await indices.all()
        ]


async def _status(
    view: View[Any],
    indices: ViewIndices,
    state: IndexState,
    logs: LogReader,
    ends: Mapping[TopicPartition, int],
    checking: ProgressCallback | None,
) -> IndexStatus:
    store = indices.store(state.name)
    reached = (await store.checkpoints(tp.partition for tp in ends)).checkpoints
    missing = {
        tp: end - reached[tp.partition].position
        for tp, end in ends.items()
        if end > reached[tp.partition].position
    }
    complete = None
    if checking is not None:
        complete = await _adds_up(view, store, reached, logs, ends, checking)
    return IndexStatus(
        name=state.name,
        state=state.state,
        of_this_program=indices.is_current(state),
        positions={number: one.position for number, one in reached.items()},
        behind=sum(missing.values()),
        seconds=max([await _age(logs, tp, ends[tp] - left) for tp, left in missing.items()] or [0]),
        documents=await store.count(),
        complete=complete,
    )


async def _age(logs: LogReader, partition: TopicPartition, position: int) -> float:
    """Seconds since the first record from this position on was written; 0.0 if there is none."""
    async for records in logs.read(partition, position, position + 100):
        written: int = records[0].timestamp  # milliseconds
        return max(0.0, time.time() - written / 1000)
    return 0.0


async def _adds_up(
    view: View[Any],
    store: ViewStore,
    before: Mapping[int, Reached],
    logs: LogReader,
    partitions: Collection[TopicPartition],
    progress: ProgressCallback,
) -> bool | None:
    await store.refresh()
    tallies = await tally_documents(view, store, len(before), progress)
    after = (await store.checkpoints(before)).checkpoints
    if after != before:
        return None
    wrong = {number for number, found in enumerate(tallies) if found != after[number].tally}
    if not wrong:
        return True
    # Documents are written before the index says so: a worker that is at it, or was killed amid it,
    # has more than that. Where there are no further events it cannot.
    ends = {tp.partition: end for tp, end in (await logs.readable_ends(partitions)).items()}
    surely = any(
        ends[number] <= after[number].position
        or tallies[number].events < after[number].tally.events
        for number in wrong
    )
    return False if surely else None


async def tally_documents(
    view: View[Any], store: ViewStore, partitions: int, progress: ProgressCallback
) -> list[Tally]:
    """What the documents of an index that were refreshed add up to, by partition."""
    tallies = DocumentTallies(view.projection, partitions)
    done, total = 0, await store.count()
    async for document in store.scan():
        tallies.add(document)
        done += 1
        if done % 1000 == 0:
            progress(f"Adding up {store.name}", done, total)
    return tallies.by_partition
