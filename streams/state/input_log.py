"""Check that the log of an input partition is the one that a state was made from.

Offsets only identify commands within one topic: one that is deleted and created again under the
same name, or has another number of partitions, has other commands at them. So the position in the
changelog (`Position`) contains the topic's id and its number of partitions. Positions that were
written before there were such fields are adopted: the next chunk adds the fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from faust.types import TP

from models.errors import Fatal, PartitionFatal
from streams.kafka.partitioner import partition_of
from streams.logs import name_of
from streams.state.store import Position

# Aggregates of a state whose partition is computed if its position has no number of partitions.
# With another number, each of them belongs elsewhere with a probability of half or more.
_CHECKED_AGGREGATES = 100


def check_topic(tp: TP, stored: Position | None, topic_id: str) -> None:
    """Check that the topic is the one that the position refers to.

    Raises:
        PartitionFatal: it was deleted and created again.
    """
    if stored is not None and stored.topic_id not in (None, topic_id):
        raise PartitionFatal(
            f"{name_of(tp)}: the topic was deleted and created again, so the position "
            f"{stored.offset} means nothing in it (its id is {topic_id}, that of the state "
            f"{stored.topic_id}); {_how_to_adopt(tp)}"
        )


def check_partitions(
    tp: TP, stored: Position | None, aggregates: Iterable[bytes], partitions: int
) -> None:
    """Check that the state was made with this number of partitions.

    Args:
        tp: the input partition.
        stored: its position.
        aggregates: ids of the aggregates in its state.
        partitions: number of partitions now.

    Raises:
        Fatal: it was another number.
    """
    if stored is not None and stored.partitions is not None:
        made_with = stored.partitions
        if made_with != partitions:
            raise _other_partitions(tp, f"was made with {made_with} partitions", partitions)
    elif any(
        partition_of(key, partitions) != tp.partition
        for key in islice(aggregates, _CHECKED_AGGREGATES)
    ):
        raise _other_partitions(tp, "was made with another number of partitions", partitions)


def check_bounds(tp: TP, stored: Position, begin: int, end: int) -> None:
    """Check that the position is within the log.

    Raises:
        PartitionFatal: commands expired before they were decided, or the log ends before the
            position.
    """
    if stored.offset < begin:
        raise PartitionFatal(
            f"{name_of(tp)}: {begin - stored.offset} commands expired before they were decided "
            f"(position {stored.offset}, log starts at {begin}); to continue without them run "
            f"`cqrs topics skip-expired {tp.partition}`"
        )
    if stored.offset > end and stored.topic_id is None:
        raise PartitionFatal(
            f"{name_of(tp)} ends at {end}, before the position {stored.offset}: if the topic was "
            f"deleted and created again, {_how_to_adopt(tp)}; if not, records were lost: restore "
            "them from a backup"
        )
    if stored.offset > end:
        raise PartitionFatal(
            f"{name_of(tp)} ends at {end}, before the position {stored.offset}: Kafka lost records "
            "that it had acknowledged; restore the topic from a backup, or use another "
            "CQRS_NAMESPACE"
        )


def _other_partitions(tp: TP, what: str, partitions: int) -> Fatal:
    """Build the error for a state of another number of partitions. Nobody can undo that."""
    return Fatal(
        f"{name_of(tp)}: its state {what}, now there are {partitions}: deciding would miss the "
        "states of most aggregates. The number is fixed for a deployment's life, and partitions "
        "that were added cannot be removed: create a deployment in another CQRS_NAMESPACE"
    )


def _how_to_adopt(tp: TP) -> str:
    return (
        f"to decide what it contains now, from its beginning, run `cqrs topics adopt "
        f"{tp.partition}` (or `--all`)"
    )
