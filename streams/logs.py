"""What a line of the log consists of: a fact, and the fields that say where.

A call that logs passes ``extra=about(...)``. The text of a line is constant for the same fact about
the same partition, so that repeated lines can be counted (`streams/worker/logs.py`); where a single
record is concerned, its offset and its command are fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

Event = Literal[
    "worker-ready",
    "worker-warning",
    "worker-stopping",
    "worker-failed",
    "worker-restarting",
    "health-served",
    "partition-started",
    "partition-fenced",
    "partition-parked",
    "partition-failed",
    "partition-unconfirmed",
    "chunk-abandoned",
    "chunk-gap",
    "transaction-not-aborted",
    "state-restored",
    "state-waits",
    "state-rebuilding",
    "state-rebuilt",
    "state-unreadable",
    "key-damaged",
    "store-removed",
    "store-not-written",
    "record-left-out",
    "view-waits",
    "view-continues",
    "view-dead-letters",
    "index-changed",
    "index-created",
    "index-serves",
    "index-mended",
    "index-waits",
    "positions-not-committed",
    "seek-abandoned",
    "defect",
]
"""Names of what is logged. They are stable: programs match on them."""


class Partition(Protocol):
    """What has a topic and a number: a partition of Faust or of aiokafka, or a record."""

    @property
    def topic(self) -> str:
        """Name of the topic."""

    @property
    def partition(self) -> int:
        """Number of the partition."""


def name_of(where: Partition) -> str:
    """Return the name of a partition in texts for people: `users.commands.v1[3]`."""
    return f"{where.topic}[{where.partition}]"


def about(
    event: Event,
    where: Partition | None = None,
    *,
    offset: int | None = None,
    command: object = None,
    **others: object,
) -> Mapping[str, object]:
    """Return the fields of a line, for ``extra``; those that are None are left out.

    Args:
        event: what happened.
        where: the partition that it happened to.
        offset: of the record in ``where`` that the line is about. Its text does not name it.
        command: id of the command that the line is about; likewise.
        others: further fields. Never personal data.
    """
    place = {} if where is None else {"topic": where.topic, "partition": where.partition}
    fields = {**place, "offset": offset, "command": command, **others}
    return {"event": event} | {name: value for name, value in fields.items() if value is not None}
