"""One life of an index: what each index of a view is, and what has to happen next.

    building   a rebuild fills it
    followed   workers with its definition keep it up to date
    serving    it is followed, and queries read it: the view's alias points to it

`plan` is the only place that decides: which index is created, followed, shown, taken back or
deleted, and what is waited for or refused. It is a function of a `Situation` (the indices with
their aliases and checkpoints, this program's definition, the event log) and of what is asked; it
does no I/O. Workers and commands look, carry out the first actions, and look again.

An index is only ever shown if it `is_complete`, and is in no partition behind the one that was
shown before. A step that changes aliases is conditional on what was seen (`views/indices.py`), so
an action that was planned before somebody else acted fails, and is planned again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        identity: Alias that only this index has; None if it was created without one.
        followed: Whether workers keep it up to date.
        serving: Whether the view's alias points to it.
        served: Whether the alias points to it, or did before.
        writable: Whether it has the aliases through which it is written.
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
    identity: str | None = None
    followed: bool = False
    serving: bool = False
    served: bool = False
    writable: bool = True
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
        has_workers: Whether a worker of this definition runs; only a cutover has to know.
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


# What is asked


@dataclass(frozen=True)
class Work:
    """A worker asks which indices to keep up to date, all the time."""


@dataclass(frozen=True)
class Rebuild:
    """A person wants a new index from the first event, and people to read it.

    Attributes:
        target: The index that this rebuild works on; None until there is one.
        abandon: Whether the serving index is given up: it is not compared with the new one.
    """

    target: Key | None = None
    abandon: bool = False


@dataclass(frozen=True)
class RollBack:
    """A person wants people to read the former index again; `target` as for `Rebuild`."""

    target: Key | None = None


@dataclass(frozen=True)
class Prune:
    """A person wants the indices deleted that nobody reads."""


Asked = Work | Rebuild | RollBack | Prune


# What has to happen


@dataclass(frozen=True)
class Create:
    """Create an empty index of this definition."""

    number: int
    followed: bool


@dataclass(frozen=True)
class Follow:
    """Let workers keep this index up to date, and give it the aliases that it lacks."""

    index: IndexState


@dataclass(frozen=True)
class Serve:
    """Move the alias to this index, away from those that had it when this was planned."""

    index: IndexState
    away_from: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """Take aliases of the view from an index that is none of its own."""

    name: str
    aliases: frozenset[str]


@dataclass(frozen=True)
class Delete:
    """Delete this index, while the alias is still on those that had it when this was planned."""

    index: IndexState
    serving: tuple[str, ...]


@dataclass(frozen=True)
class Load:
    """Project all events into this index, which no worker follows; add it up, and follow it."""

    index: IndexState


@dataclass(frozen=True)
class Project:
    """Keep these up to date: `lead` for those who read, each of `others` at its own pace."""

    lead: IndexState
    others: tuple[IndexState, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Look again later; `line` says what for. Of a cutover, `index` is the one to be shown."""

    line: str
    index: IndexState | None = None


@dataclass(frozen=True)
class Done:
    """Queries read this index, as was asked."""

    index: IndexState


@dataclass(frozen=True)
class Warn:
    """Say this line, and go on: only a person can mend it."""

    line: str


@dataclass(frozen=True)
class Refuse:
    """Stop; `line` says what to do."""

    line: str


Action = Create | Follow | Serve | Strip | Delete | Load | Project | Wait | Done | Warn | Refuse


def plan(situation: Situation, asked: Asked) -> list[Action]:
    """Return what has to happen next, in order."""
    if situation.is_index:
        return [
            Refuse(
                f"an index is called {situation.alias}, which is the alias that queries read: "
                "delete it, or use another CQRS_NAMESPACE"
            )
        ]
    if isinstance(asked, Work):
        return _work(situation)
    if isinstance(asked, Rebuild):
        return _rebuild(situation, asked)
    if isinstance(asked, RollBack):
        return _roll_back(situation, asked)
    return _prune(situation)


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
    has not. So the commands are compared that their last events are from, and how many of a
    command's events they have. A checkpoint of another topic says nothing about this one.
    """
    mine, theirs = index.checkpoints or {}, other.checkpoints or {}
    return sum(
        (one.command_offset, one.sequence)
        > (mine.get(number, NOTHING).command_offset, mine.get(number, NOTHING).sequence)
        for number, one in theirs.items()
    )


def why_foreign(situation: Situation, index: IndexState) -> str | None:
    """Return why this program may not write to an index, or None if it may."""
    log, made = situation.log, index.partitions or len(index.wanted) or None
    if index.definition != situation.definition:
        return "another program created it: this one would write different documents"
    if index.shards != 1:
        return f"it has {index.shards} shards: its checkpoints hold for one shard only"
    if log is not None and made not in (None, log.partitions):
        return f"it was made of {made} partitions of the event topic, which has {log.partitions}"
    if _is_of_another_topic(situation, index):
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


def _work(situation: Situation) -> list[Action]:
    """Plan for a worker."""
    mended: list[Action] = [
        Strip(name, aliases - {situation.alias})
        for name, aliases in situation.strangers.items()
        if aliases - {situation.alias}
    ]
    usable = [one for one in reversed(situation.indices) if not why_foreign(situation, one)]
    followed = [one for one in usable if one.followed or one.serving]
    for one in followed or situation.indices:
        if is_of_another_cluster(situation, one):
            return [_other_cluster(one)]
    if not followed:
        return [*mended, *_begin(situation, usable)]
    mended += [
        Follow(one) for one in followed if not one.closed and not (one.followed and one.writable)
    ]
    lead = next((one for one in followed if one.serving), None) or next(
        (one for one in followed if not one.closed), followed[0]
    )
    others = tuple(one for one in followed if one is not lead and not one.closed)
    return [*mended, *_show(situation, followed), Project(lead, others)]


def _begin(situation: Situation, usable: Sequence[IndexState]) -> Iterator[Action]:
    """Plan for a worker that has no index to follow; `usable` has the newest first."""
    others = [one for one in situation.indices if one.followed or one.serving]
    if others:
        names = ", ".join(one.name for one in others)
        yield Refuse(
            f"The view {situation.alias} is in {names}, but {why_foreign(situation, others[-1])}; "
            f"run `cqrs views rebuild {situation.view}`, and then this worker"
        )
        return
    for one in usable:
        if not one.closed:  # left by a rebuild, or restored from a snapshot without its aliases
            yield Follow(one)
            return
    closed = [one.name for one in situation.indices if one.closed]
    if closed:
        yield Wait(f"{', '.join(closed)} is closed: open it, or delete it to begin anew")
    else:
        yield Create(_next_number(situation), followed=True)


def _show(situation: Situation, followed: Sequence[IndexState]) -> Iterator[Action]:
    """Plan to put the alias on one complete index, unless it is on one of the view's already."""
    serving = situation.serving
    if len(serving) == 1 and len(situation.bearers) == 1:
        return
    ready = [one for one in serving or followed if not one.closed and is_complete(one)]
    if ready:
        best = min(ready, key=lambda one: (_behind_any(one, ready), -one.number))
        yield Serve(best, situation.bearers)
    elif len(situation.bearers) > 1:
        yield Warn(
            f"{situation.alias} is on {', '.join(situation.bearers)}: no query is answered before "
            "somebody takes it from all but one"
        )


def _rebuild(situation: Situation, asked: Rebuild) -> list[Action]:
    """Plan for `cqrs views rebuild`."""
    if asked.target is not None:
        target = situation.find(asked.target)
        if target is None:
            return [_deleted(asked.target)]
        foreign = why_foreign(situation, target)
        if foreign:
            return [Refuse(f"{target.name} is of no use any more, {foreign}: run this again")]
        if not (target.followed or target.serving):
            return [_closed(target)] if target.closed else [Load(target)]
        return [_cut_over(situation, target, abandon=asked.abandon)]
    if not asked.abandon:
        for one in situation.indices:
            if is_of_another_cluster(situation, one):
                return [_other_cluster(one)]
        for one in situation.serving:
            if one.closed or one.checkpoints is None:
                return [Refuse(_cannot_be_compared(situation, one))]
    newest = situation.indices[-1] if situation.indices else None
    if (
        newest is not None
        and not (newest.served or newest.serving or newest.closed)
        and why_foreign(situation, newest) is None
    ):
        return (
            [_cut_over(situation, newest, abandon=asked.abandon)]
            if newest.followed
            else [Load(newest)]
        )
    left = [
        one
        for one in situation.indices
        if one.state == "building" and not (one.served or one.closed)
    ]
    return [*_delete(situation, left), Create(_next_number(situation), followed=False)]


def _roll_back(situation: Situation, asked: RollBack) -> list[Action]:
    """Plan for `cqrs views rollback`."""
    if asked.target is not None:
        target = situation.find(asked.target)
        return [_cut_over(situation, target) if target else _deleted(asked.target)]
    former = [one for one in situation.indices if one.served and not one.serving]
    if not former:
        return [Refuse(f"there is no former index of {situation.view} to go back to")]
    for one in situation.serving:
        if one.closed or one.checkpoints is None:
            return [Refuse(_cannot_be_compared(situation, one))]
    return [_cut_over(situation, former[-1])]


def _cut_over(situation: Situation, target: IndexState, *, abandon: bool = False) -> Action:
    """Plan to let queries read a followed index, and no other one."""
    if situation.bearers == (target.name,):
        return Done(target)
    if target.closed:
        return _closed(target)
    if target.checkpoints is None:
        return Wait(f"{target.name} cannot be read", target)
    if not situation.has_workers:
        return Wait(
            f"no worker follows the new index of {situation.view}, so it would be out of date at "
            "once: start a view worker of this program "
            f"(`cqrs worker {situation.role}`), then run this again; it continues from here",
            target,
        )
    is_running = (
        f"is a view worker of the program that created it running (`cqrs worker {situation.role}`)?"
    )
    if not is_complete(target):
        return Wait(f"{target.name} does not have all events yet: {is_running}", target)
    for one in situation.serving:
        if one is target or abandon or _are_of_different_topics(one, target):
            continue
        if one.closed or one.checkpoints is None:
            return Wait(_cannot_be_compared(situation, one), target)
        behind = partitions_behind(target, one)
        if behind:
            return Wait(
                f"{target.name} is behind in {behind} partitions and does not catch up: "
                f"{is_running}",
                target,
            )
    return Serve(target, situation.bearers)


def _prune(situation: Situation) -> list[Action]:
    """Plan for `cqrs views prune`: names and aliases are enough."""
    serving = situation.serving
    if len(situation.bearers) > 1:
        return [
            Refuse(f"{situation.alias} is on {', '.join(situation.bearers)}: run a view worker")
        ]
    if not serving and situation.indices:
        return [Refuse(f"no index of {situation.view} serves queries, so nothing is deleted")]
    if any(one.closed for one in serving):
        return [Refuse(f"{serving[0].name} serves queries and is closed: open it first")]
    return _delete(situation, [one for one in situation.indices if not one.serving])


def _delete(situation: Situation, indices: Iterable[IndexState]) -> list[Action]:
    """Plan to delete indices; none without one that serves, which this can be made sure of by."""
    if len(situation.bearers) != 1 or not situation.serving:
        return []
    return [Delete(one, situation.bearers) for one in indices]


def _next_number(situation: Situation) -> int:
    """Return a number above those of all indices, so that no name comes back while one is there."""
    return max((one.number for one in situation.indices), default=0) + 1


def _behind_any(index: IndexState, others: Iterable[IndexState]) -> int:
    return sum(partitions_behind(index, one) > 0 for one in others)


def _is_of_another_topic(situation: Situation, index: IndexState) -> bool:
    return situation.log is not None and bool(_topics(index) - {situation.log.topic_id})


def _are_of_different_topics(index: IndexState, other: IndexState) -> bool:
    """Return whether how far these are cannot be compared; two of one former topic can be."""
    mine, theirs = _topics(index), _topics(other)
    return bool(mine and theirs) and mine.isdisjoint(theirs)


def _topics(index: IndexState) -> set[str]:
    """Return the ids of the event topics that the documents of an index are of, as far as known."""
    return {index.topic, *(one.topic for one in (index.checkpoints or {}).values())} - {""}


def _cannot_be_compared(situation: Situation, serving: IndexState) -> str:
    what = "is closed: open it" if serving.closed else "cannot be read: repair or restore it"
    return (
        f"{serving.name} serves queries and {what}, and run this again; if it is lost, `cqrs views "
        f"rebuild {situation.view} --abandon-serving` replaces it"
    )


def _closed(index: IndexState) -> Refuse:
    return Refuse(f"{index.name} is closed: open it, and run this again")


def _deleted(key: Key) -> Refuse:
    return Refuse(f"{key[0]} was deleted meanwhile: run this again")


def _other_cluster(index: IndexState) -> Refuse:
    return Refuse(
        f"{index.name} has the events of another Kafka cluster: use its own brokers "
        "(CQRS_BOOTSTRAP_SERVERS), or another CQRS_NAMESPACE"
    )
