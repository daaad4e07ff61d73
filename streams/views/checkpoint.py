"""Checkpoints: how far an index is, stored in the index itself beside its documents.

An index has one checkpoint document per partition of the event topic. If the index is deleted or
restored from an older snapshot, so are its checkpoints: what is missing is always projected again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from elastic_transport import NodeConfig

from models.errors import PartitionFatal, Transient
from streams.elasticsearch.bulk_writer import is_possible_id
from streams.elasticsearch.index import CHECKPOINT
from streams.views.tally import NO_EVENTS, Tally

_ID_PREFIX = " progress "


class IndexChanged(Transient):
    """The index is not as this writer left it, so its partition has to start again.

    Another process wrote to it, or it was deleted or restored.
    """


class Revision(NamedTuple):
    """Elasticsearch's number for one state of a document, for conditional writes."""

    seq_no: int
    primary_term: int


@dataclass(frozen=True)
class Checkpoint:
    """How far an index is in one partition.

    Attributes:
        position: Next offset of the event topic; the events before it are in the index, or dead
            letters if they cannot be.
        command_offset: Offset of the command that caused the last event in the index; -1 if there
            is none. It begins at 0 again with a command topic that is created again.
        sequence: Sequence of that event in its aggregate (a command may cause several events).
        cluster: Id of the Kafka cluster that the events are from; empty if nothing was stored yet.
        tally: Tally of the events in the index that belong to a document.
        topic: Id of the event topic; empty if nothing was stored yet, or by an older version.
        revision: Revision of the stored document; None if nothing was stored yet.
        event_offset: Offset of the last event in the index on the event topic; -1 if there is none,
            or if an older version stored this.
    """

    position: int = 0
    command_offset: int = -1
    sequence: int = 0
    cluster: str = ""
    tally: Tally = NO_EVENTS
    topic: str = ""
    revision: Revision | None = None
    event_offset: int = -1

    def to_source(self) -> dict[str, Any]:
        """Return the document to store, without its revision."""
        fields = {
            "position": self.position,
            "event": self.event_offset,
            "decided": self.command_offset,
            "sequence": self.sequence,
            "cluster": self.cluster,
            "topic": self.topic,
            "events": self.tally.events,
            "checksum": f"{self.tally.checksum:016x}",  # too large for a number in JSON
        }
        return {CHECKPOINT: fields}


NOTHING = Checkpoint()
"""The checkpoint of an empty index."""


@dataclass(frozen=True)
class IndexCheckpoints:
    """Name of an index, its checkpoints by partition, and the node that was asked for them."""

    name: str
    checkpoints: Mapping[int, Checkpoint]
    node: NodeConfig | None = None


def checkpoint_id(partition: int) -> str:
    """Return the document's id."""
    return f"{_ID_PREFIX}{partition}"


def can_be_document(key: str) -> bool:
    """Return whether a document of a view can have this id.

    Elasticsearch has to accept it, and checkpoints must not have it. No command has another id;
    events that were written by hand may have one, and a projection may make one.
    """
    return is_possible_id(key) and not key.startswith(_ID_PREFIX)


def read_checkpoint(index: str, item: Mapping[str, Any]) -> Checkpoint:
    """Read a checkpoint from an item of Elasticsearch's response to `mget`.

    A document that does not exist is the checkpoint of an empty index.

    Raises:
        PartitionFatal: The document is not a checkpoint.
    """
    if not item.get("found"):
        return NOTHING
    try:
        fields = item["_source"][CHECKPOINT]
        return Checkpoint(
            position=int(fields["position"]),
            command_offset=int(fields["decided"]),
            sequence=int(fields["sequence"]),
            cluster=str(fields["cluster"]),
            topic=str(fields.get("topic", "")),
            tally=Tally(int(fields["events"]), int(fields["checksum"], 16)),
            revision=Revision(item["_seq_no"], item["_primary_term"]),
            event_offset=int(fields.get("event", -1)),
        )
    except (KeyError, TypeError, ValueError):
        raise PartitionFatal(
            f"The document {item['_id']!r} of {index} is not a checkpoint: rebuild the view "
            "(cqrs views rebuild)"
        ) from None
