"""How far a view is: one document per partition of the event topic, in the view's own index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Progress:
    """What the index has of one partition of the event topic.

    Attributes:
        position: All events before it are in the index.
        decided: The offset of the command of the last of them; -1 if there is none.
        sequence: The number of the last of them in its aggregate: a command may have several.
        cluster: The id of the Kafka cluster that they come from; empty if there is none.
    """

    position: int = 0
    decided: int = -1
    sequence: int = 0
    cluster: str = ""

    def to_source(self) -> dict[str, Any]:
        """The document."""
        return {"progress": vars(self)}


class Serving(NamedTuple):
    """The name of an index, and its progress by partition."""

    name: str
    progress: Mapping[int, Progress]


def progress_id(partition: int) -> str:
    """The document's id. No aggregate has it: their ids begin with no space."""
    return f" progress {partition}"
