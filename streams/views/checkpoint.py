"""How far an index is: kept in the index itself, beside the documents it is about.

There is one such document per partition of the event topic. Wherever the index goes (deleted, or
back to an older snapshot) its progress goes with it, so what is missing is always projected again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.errors import Fatal, Transient
from streams.elasticsearch.index import PROGRESS
from streams.views.tally import NOTHING, Tally


class IndexChanged(Transient):
    """The index is not what this writer has left: it, or its progress, has to be looked at again.

    Somebody else writes to it, or it was deleted or restored.
    """


class Revision(NamedTuple):
    """Elasticsearch's number of one state of a document; the next write is for this one only."""

    seq_no: int
    primary_term: int


@dataclass(frozen=True)
class Checkpoint:
    """What an index has of one partition.

    Attributes:
        position: Of the event topic: all events before it are in the index.
        decided: The offset of the command of the last of them; -1 if there is none.
        sequence: The number of that event in its aggregate: a command may have several.
        cluster: The id of the Kafka cluster that they come from; empty if there is none.
        tally: What they add up to.
        revision: Of the document that said this; None if there was none.
    """

    position: int = 0
    command_offset: int = -1
    sequence: int = 0
    cluster: str = ""
    tally: Tally = NOTHING
    revision: Revision | None = None

    def to_source(self) -> dict[str, Any]:
        """The document."""
        said = {
            "position": self.position,
            "decided": self.command_offset,
            "sequence": self.sequence,
            "cluster": self.cluster,
            "events": self.tally.events,
            "checksum": f"{self.tally.checksum:016x}",  # no number of JSON is that large
        }
        return {PROGRESS: said}


@dataclass(frozen=True)
class IndexCheckpoints:
    """The name of an index, and its progress by partition."""

    name: str
    checkpoints: Mapping[int, Checkpoint]


def checkpoint_id(partition: int) -> str:
    """The document's id. No aggregate has it: their ids begin with no space."""
    return f" progress {partition}"


def read_checkpoint(index: str, item: Mapping[str, Any]) -> Checkpoint:
    """From Elasticsearch's answer for such a document.

    Raises:
        Fatal: It is none.
    """
    if not item.get("found"):
        return Checkpoint()
    try:
        said = item["_source"][PROGRESS]
        return Checkpoint(
            position=int(said["position"]),
            command_offset=int(said["decided"]),
            sequence=int(said["sequence"]),
            cluster=str(said["cluster"]),
            tally=Tally(int(said["events"]), int(said["checksum"], 16)),
            revision=Revision(item["_seq_no"], item["_primary_term"]),
        )
    except (KeyError, TypeError, ValueError):
        raise Fatal(
            f"The document {item['_id']!r} of {index} is no progress of a view: make the view "
            "again (cqrs views rebuild)"
        ) from None
