"""What was found out about a deployment, and what could not be. Nothing is judged here.

Times are seconds since 1970, by the clock of this host unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.top.overview import ParkedCommands
from streams.kafka.brokers import Brokers
from streams.kafka.topics import TopicSpec
from streams.settings import Settings
from streams.views.situation import Situation


@dataclass(frozen=True)
class NotKnown:
    """What could not be found out, and why, in one line."""

    why: str
    kind: Literal["silent", "unasked", "refused", "hidden"] = "silent"
    """`silent`: nobody answered in time. `unasked`: it follows from something else that is not
    known. `refused`: a server said what a person has to mend. `hidden`: these credentials may not
    see it, which is not a mistake."""


@dataclass(frozen=True)
class Backlog:
    """What a consumer group has not processed of a partition."""

    records: int
    """Offsets up to the end of what can be read; transaction markers have offsets, too."""
    since: float | None
    """When the broker got the first record of it; None if there are markers only."""


@dataclass(frozen=True)
class WorkerGroup:
    """The consumer group of the workers of a role."""

    role: str
    """As in `cqrs worker`."""
    name: str
    topic: str
    members: int
    owned: frozenset[int]
    """Partitions that a member has."""
    is_rebalancing: bool = False


@dataclass(frozen=True)
class OpenTransaction:
    """The first record that readers do not see yet, since its transaction is open."""

    topic: str
    partition: int
    offset: int
    since: float


@dataclass(frozen=True)
class Logs:
    """What is on the topics."""

    open_transactions: Sequence[OpenTransaction]
    backlogs: Mapping[str, Mapping[int, Backlog]]
    """By consumer group and partition; partitions without a backlog are left out."""
    dead_letters: Mapping[str, float]
    """When the first one of the last hour was written, by topic of dead letters."""
    ahead: float
    """Seconds that the newest time on a record is ahead of this host's clock; 0 if it is not."""


@dataclass(frozen=True)
class Node:
    """One node of Elasticsearch."""

    name: str
    version: str
    clock_ahead: float
    """Seconds that its clock is ahead of this host's; negative if it is behind."""
    disk_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Nodes:
    """The cluster of Elasticsearch."""

    nodes: Sequence[Node]
    watermarks: Mapping[str, str]
    """Its settings of disk watermarks: `low`, `high`, `flood_stage`, and their `.max_headroom`;
    empty if it does not heed them."""
    health: Mapping[str, str]
    """`green`, `yellow` or `red`, by index."""


@dataclass(frozen=True)
class ViewFacts:
    """One view in Elasticsearch."""

    name: str
    role: str
    situation: Situation
    """Without the event topic (`log`) if Kafka did not answer."""
    blocks: Mapping[str, Sequence[str]]
    """Blocks that are on, by index: `read_only_allow_delete`, for instance."""
    wrong_fields: Mapping[str, Sequence[str]]
    """Fields whose mapping is not that of this program, by index that this program made."""


@dataclass(frozen=True)
class Certificate:
    """A certificate, of a server or in a file of the settings."""

    of: str
    expires: float


@dataclass(frozen=True)
class Disk:
    """The disk that a folder of this host is on."""

    folder: Path
    size_bytes: int
    free_bytes: int
    is_writable: bool


@dataclass(frozen=True)
class WorkerPartition:
    """A partition of a worker, as its `/ready` describes it."""

    name: str
    state: str
    parked: str | None


@dataclass(frozen=True)
class WorkerState:
    """What a worker says of itself."""

    partitions: Sequence[WorkerPartition]
    parked: ParkedCommands


@dataclass(frozen=True)
class Facts:
    """Everything that was asked for."""

    settings: Settings
    now: float
    specs: Sequence[TopicSpec]
    """The topics as they have to be."""
    brokers: Brokers | NotKnown
    topics: Mapping[str, TopicSpec] | NotKnown
    rights: Sequence[str] | NotKnown
    """A line for each right on Kafka that is missing."""
    groups: Sequence[WorkerGroup] | NotKnown
    logs: Logs | NotKnown
    master_key: bool | NotKnown
    """Whether there is one; it is that of the existing keys."""
    nodes: Nodes | NotKnown
    privileges: Sequence[str] | NotKnown
    """A line for each privilege on Elasticsearch that is missing."""
    views: Mapping[str, ViewFacts | NotKnown]
    certificates: Mapping[str, Certificate | NotKnown]
    """By what they are of."""
    state: Disk | None
    """Of `CQRS_STATE_DIR`; None if that is not set, or not there."""
    workers: Mapping[str, WorkerState | NotKnown]
    """By the address that a worker serves its health at."""
