"""Reports the state of a view's indices and how far they are, for people and for `verify`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.structs import TopicPartition

from streams.aggregate import TopicNames
from streams.elasticsearch.connection import connected
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.topics import partitions_of
from streams.progress import ProgressCallback
from streams.settings import Settings
from streams.views.checkpoint import Checkpoint
from streams.views.indices import ViewIndices
from streams.views.projection import View
from streams.views.reader import PointInTime, ViewReader
from streams.views.situation import IndexState, Situation, trouble
from streams.views.source import event_log
from streams.views.tally import DocumentTallies, Tally

_REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class IndexStatus:
    """Status of one index of a view."""

    name: str
    state: str
    """`serving`, `followed` or `building`; `foreign` for an index of another name that is in the
    view's way."""
    trouble: str | None
    """What is wrong with it, and what to do; None if nothing is."""
    of_this_program: bool
    """Whether it has this program's definition of the view."""
    positions: Mapping[int, int]
    """Its position in each partition of the event topic; empty if it cannot be read, and what
    follows is None then."""
    behind: int | None
    """Number of offsets of the event topic that it has not reached yet. Transaction markers have
    offsets, too, so there may be fewer events."""
    seconds: float | None
    """Age of the oldest event that it does not have yet; 0.0 if it has all."""
    documents: int | None
    """Number of its documents, as of the last refresh."""
    complete: bool | None
    """Whether the tally of its documents is that of its checkpoints; None if that was not checked
    or is not known: a chunk was only partly projected, or another program wrote the documents."""


async def status_of(
    settings: Settings, view: View[Any], *, check: bool, progress: ProgressCallback
) -> list[IndexStatus]:
    """Return the status of all indices of a view, the oldest first.

    Args:
        settings: Contains the addresses of the servers.
        view: The view.
        check: Whether to read all documents and compare their tally with the checkpoints.
        progress: Receives how far that is.

    Raises:
        Fatal: Kafka does not answer at the start, or a server refuses a request.
        Transient, KafkaError: A server failed.
    """
    log = await event_log(settings, view)
    partitions = partitions_of(settings, TopicNames.of(settings, view.aggregate).events)
    async with (
        connected(settings, timeout=_REQUEST_TIMEOUT_S) as client,
        open_logs(settings, partitions) as logs,
    ):
        indices = ViewIndices.from_settings(settings, client, view)
        ends = await logs.readable_ends(partitions)
        situation = await indices.look(log)
        found = [
            await _status(view, indices, situation, state, logs, ends, progress if check else None)
            for state in situation.indices
        ]
        strangers = {
            name: f"has {', '.join(sorted(aliases))}: a view worker takes them away, or delete it"
            for name, aliases in situation.strangers.items()
        }
        if situation.is_index:
            strangers[situation.alias] = "is called like the alias that queries read: delete it"
        return found + [_foreign(name, text) for name, text in strangers.items()]


async def _status(
    view: View[Any],
    indices: ViewIndices,
    situation: Situation,
    state: IndexState,
    logs: LogReader,
    ends: Mapping[TopicPartition, int],
    check_progress: ProgressCallback | None,
) -> IndexStatus:
    """Return the status of one index; check its documents only with a `check_progress`."""
    status = IndexStatus(
        name=state.name,
        state=state.state,
        trouble=trouble(situation, state),
        of_this_program=indices.is_current(state),
        positions={},
        behind=None,
        seconds=None,
        documents=None,
        complete=None,
    )
    checkpoints = state.checkpoints
    if checkpoints is None:
        return status
    damaged = [tp.partition for tp in ends if tp.partition not in checkpoints]
    if damaged:
        return replace(status, trouble=f"the checkpoints of partitions {damaged} are damaged")
    store = indices.store(state.name)
    missing = {
        tp: end - checkpoints[tp.partition].position
        for tp, end in ends.items()
        if end > checkpoints[tp.partition].position
    }
    complete = None
    if check_progress is not None and status.of_this_program:
        complete = await _is_complete(view, store, logs, ends, check_progress)
    return replace(
        status,
        positions={number: one.position for number, one in checkpoints.items()},
        behind=sum(missing.values()),
        seconds=max(
            [await _age(logs, tp, ends[tp] - left, ends[tp]) for tp, left in missing.items()] or [0]
        ),
        documents=await store.count(),
        complete=complete,
    )


def _foreign(name: str, trouble: str) -> IndexStatus:
    """Return the status of an index that is none of the view's, and in its way."""
    return IndexStatus(name, "foreign", trouble, False, {}, None, None, None, None)


async def _age(logs: LogReader, partition: TopicPartition, position: int, end: int) -> float:
    """Return the age in seconds of the first record from a position on; 0.0 without one."""
    async for records in logs.read(partition, position, end):
        written_ms: int = records[0].timestamp
        return max(0.0, time.time() - written_ms / 1000)
    return 0.0


async def _is_complete(
    view: View[Any],
    reader: ViewReader,
    logs: LogReader,
    partitions: Collection[TopicPartition],
    progress: ProgressCallback,
) -> bool | None:
    """Return whether the documents have the tally of the checkpoints; None if it is not known."""
    numbers = [tp.partition for tp in partitions]
    before = (await reader.checkpoints(numbers)).checkpoints
    await reader.refresh()
    async with reader.point_in_time() as point:
        after = (await reader.checkpoints(numbers)).checkpoints
        total = await reader.count()

        def report(read: int) -> None:
            progress(f"Adding up {reader.name}", read, total)

        tallies = await tally_documents(view, reader, len(numbers), point, report)
    ends = {tp.partition: end for tp, end in (await logs.readable_ends(partitions)).items()}
    verdicts = {
        adds_up(tallies[number], before[number], after[number], ends[number]) for number in numbers
    }
    return False if False in verdicts else None if None in verdicts else True


def adds_up(found: Tally, before: Checkpoint, after: Checkpoint, end: int) -> bool | None:
    """Return whether documents of a partition add up to its checkpoint; None if it is not known.

    Args:
        found: The tally of the documents of one moment.
        before: The checkpoint before that moment.
        after: The checkpoint after it.
        end: Position after the last event that exists.
    """
    if found in (before.tally, after.tally):
        return True
    if before.tally != after.tally:  # a worker was writing
        return None
    # A chunk's documents are written before its checkpoint. So if a worker is in between, or was
    # killed there, the documents contain more events; but only if there are events to come.
    is_between = found.events >= after.tally.events and after.position < end
    return None if is_between else False


async def tally_documents(
    view: View[Any],
    reader: ViewReader,
    partitions: int,
    point: PointInTime,
    report: Callable[[int], None],
) -> list[Tally]:
    """Return the tally of the documents of a point in time, or of a part, for each partition.

    `report` is told how many documents were read.
    """
    tallies, read = DocumentTallies(view.projection, partitions), 0
    async for page in reader.pages(point):
        tallies.add_all(page)
        read += len(page)
        report(read)
    return tallies.by_partition
