"""What is there of a view: its indices, as they were seen in one look, and what each of them is.

    building   a rebuild fills it
    followed   workers with its definition keep it up to date
    serving    it is followed, and queries read it: the view's alias points to it

What has to happen next is in `views/lifecycle.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.views.checkpoint import NOTHING, Checkpoint

Key = tuple[str, str]
"""Name and uuid of an index, which tell apart two indices that had the same name."""


@dataclass(frozen=True)
class EventLog:
    """Identity of the event topic that is read.

    Attributes:
        cluster: Id of the Kafka cluster.
        topic_id: Id of the topic: another one after it was deleted and created again.
        partitions: Number of its partitions; checked against the settings.
    """

    cluster: str
    topic_id: str
    partitions: int


@dataclass(frozen=True)
class IndexState:
    """State of one of a view's indices, as it was seen in one look.

    Attributes:
        name: `<alias>-v<number>`.
        number: Number of the index; the newest has the highest.
        uuid: Elasticsearch's id of the index: it changes when an index is deleted and created
            again under the same name.
        definition: Definition of the view that the index was created for (`View.definition`).
        wanted: Position, by partition of the event topic, that the index has to reach before it
            may serve queries: the end of the partition when the index was created.
        partitions: Number of partitions that it was created for; None if it does not say.
        topic: Id of the event topic that it was created for; empty if it does not say.
        shards: Number of its primary shards.
        identity: Alias that only this index may have.
        followed: Whether workers keep it up to date.
        serving: Whether the view's alias points to it.
        served: Whether the alias points to it, or did before.
        writable: Whether it has the aliases through which it is written.
        borrowed: Aliases that it has and only another index of the view may have: a snapshot brings
            them along that is restored under the view's next number.
        closed: Whether somebody has closed it.
        loading: Whether it still has the settings for loading: no refresh, no replicas.
        checkpoints: Its checkpoints by partition, without those that are damaged; None if they were
            not read, or could not be.
    """

    name: str
    number: int
    uuid: str
    definition: str
    wanted: Mapping[int, int] = field(default_factory=dict)
    partitions: int | None = None
    topic: str = ""
    shards: int = 1
    identity: str = ""
    followed: bool = False
    serving: bool = False
    served: bool = False
    writable: bool = True
    borrowed: frozenset[str] = frozenset()
    closed: bool = False
    loading: bool = False
    checkpoints: Mapping[int, Checkpoint] | None = None

    @property
    def key(self) -> Key:
        """Name and uuid, which tell apart two indices that had the same name."""
        return self.name, self.uuid

    @property
    def state(self) -> str:
        """One of `building`, `followed` and `serving`; see the module."""
        return "serving" if self.serving else "followed" if self.followed else "building"


@dataclass(frozen=True)
class Situation:
    """What was seen of a view in one look, and who looks.

    Attributes:
        view: Name of the view in commands.
        role: Name of its workers in `cqrs worker`.
        alias: Alias that queries read.
        definition: This program's definition of the view.
        log: The event topic; None if only names and aliases matter.
        indices: Its indices, the oldest first.
        strangers: Indices with other names that have aliases of the view, and which: what a
            snapshot brings along that is restored under another name.
        is_index: Whether an index is called like the alias.
        has_workers: Whether a worker runs that can keep the index up to date which is to be shown;
            only a cutover has to know.
        just_before: The indices that served queries a moment ago, as they were then. A cutover
            compares with these: while events come, two indices are never at the same ones in all
            partitions.
    """

    view: str
    role: str
    alias: str
    definition: str
    log: EventLog | None = None
    indices: Sequence[IndexState] = ()
    strangers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_index: bool = False
    has_workers: bool = True
    just_before: Sequence[IndexState] = ()

    def find(self, key: Key) -> IndexState | None:
        """Return the index with this name and uuid, if it is still there."""
        return next((one for one in self.indices if one.key == key), None)

    @property
    def serving(self) -> list[IndexState]:
        """The view's indices that the alias points to: one, unless somebody has meddled."""
        return [one for one in self.indices if one.serving]

    @property
    def bearers(self) -> tuple[str, ...]:
        """Names of all indices that the alias points to, strangers included."""
        strangers = (name for name, aliases in self.strangers.items() if self.alias in aliases)
        return *(one.name for one in self.serving), *strangers


def is_complete(index: IndexState) -> bool:
    """Return whether an index has all events that existed when it was created."""
    checkpoints = index.checkpoints
    return checkpoints is not None and all(
        number in checkpoints and checkpoints[number].position >= end
        for number, end in index.wanted.items()
    )


def partitions_behind(index: IndexState, other: IndexState) -> int:
    """Return in how many partitions an index lacks events that another one has.

    Positions cannot be compared: an index may have passed a transaction marker that the other one
    has not. So the offsets of their last events are. A checkpoint of another topic says nothing
    about this one.
    """
    mine, theirs = index.checkpoints or {}, other.checkpoints or {}
    return sum(_is_behind(mine.get(number, NOTHING), one) for number, one in theirs.items())


def _is_behind(mine: Checkpoint, theirs: Checkpoint) -> bool:
    """Return whether a checkpoint lacks events that another one of the same partition has.

    One that an older version wrote does not contain the offset of its last event. Then the commands
    are compared that their last events are from, and how many of a command's events they have.
    """
    if mine.event_offset >= 0 and theirs.event_offset >= 0:
        return theirs.event_offset > mine.event_offset
    return (theirs.command_offset, theirs.sequence) > (mine.command_offset, mine.sequence)


def why_foreign(situation: Situation, index: IndexState) -> str | None:
    """Return why this program may not write to an index, or None if it may."""
    log, made = situation.log, index.partitions or len(index.wanted) or None
    if index.definition != situation.definition:
        return "another program created it: this one would write different documents"
    if index.shards != 1:
        return f"it has {index.shards} shards: its checkpoints hold for one shard only"
    if log is not None and made not in (None, log.partitions):
        return f"it was made of {made} partitions of the event topic, which has {log.partitions}"
    if is_of_another_topic(situation, index):
        return "it has the events of a topic that was deleted and created again"
    return None


def is_of_another_cluster(situation: Situation, index: IndexState) -> bool:
    """Return whether the events in an index are of another Kafka cluster."""
    clusters = {one.cluster for one in (index.checkpoints or {}).values()}
    return situation.log is not None and bool(clusters - {"", situation.log.cluster})


def trouble(situation: Situation, index: IndexState) -> str | None:
    """Return what is wrong with an index, for people; None if nothing is."""
    if index.closed:
        return "closed: open it"
    if index.checkpoints is None:
        return "cannot be read"
    if is_of_another_cluster(situation, index):
        return "has the events of another Kafka cluster"
    if index.serving and len(situation.bearers) > 1:
        return f"{situation.alias} is on {', '.join(situation.bearers)}"
    if index.definition == situation.definition:
        return why_foreign(situation, index) or (
            None if index.writable or not index.followed else "lacks an alias for writing"
        )
    return None


def is_of_another_topic(situation: Situation, index: IndexState) -> bool:
    """Return whether events in an index are of a topic that was deleted and created again."""
    return situation.log is not None and bool(_topics(index) - {situation.log.topic_id})


def are_of_different_topics(index: IndexState, other: IndexState) -> bool:
    """Return whether how far these are cannot be compared; two of one former topic can be."""
    mine, theirs = _topics(index), _topics(other)
    return bool(mine and theirs) and mine.isdisjoint(theirs)


def _topics(index: IndexState) -> set[str]:
    """Return the ids of the event topics that the documents of an index are of, as far as known."""
    return {index.topic, *(one.topic for one in (index.checkpoints or {}).values())} - {""}
