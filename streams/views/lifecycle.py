"""One life of an index: what has to happen next to the indices of a view.

`plan` is the only place that decides: which index is created, followed, shown, taken back or
deleted, and what is waited for or refused. It is a function of a `Situation` (the indices with
their aliases and checkpoints, this program's definition, the event log) and of what is asked; it
does no I/O. Workers and commands look, carry out the first actions, and look again.

An index is only ever shown if it `is_complete`, and is in no partition behind the one that was
shown before, as that one was a moment ago. A step that changes aliases is conditional on what was
seen (`views/indices.py`), so an action that was planned before somebody else acted fails, and is
planned again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from streams.views.situation import (
    IndexState,
    Key,
    Situation,
    are_of_different_topics,
    is_complete,
    is_of_another_cluster,
    is_of_another_topic,
    partitions_behind,
    why_foreign,
)

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
    """Take aliases from an index that only others, or another one, of the view may have."""

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


def definition_to_follow(situation: Situation, asked: Rebuild | RollBack) -> str | None:
    """Return the definition of the workers that have to run before queries read another index.

    None if nobody has to: an index to go back to that has the definition of the serving one is
    followed by the same workers, whether they run or not; and they may be what is broken.
    """
    if isinstance(asked, Rebuild):
        return situation.definition
    target = _to_roll_back_to(situation, asked)
    if target is None or any(one.definition == target.definition for one in situation.serving):
        return None
    return target.definition


def _work(situation: Situation) -> list[Action]:
    """Plan for a worker."""
    mended: list[Action] = [
        Strip(name, aliases - {situation.alias})
        for name, aliases in situation.strangers.items()
        if aliases - {situation.alias}
    ]
    mended += [Strip(one.name, one.borrowed) for one in situation.indices if one.borrowed]
    usable = [one for one in reversed(situation.indices) if not why_foreign(situation, one)]
    followed = [one for one in usable if one.followed or one.serving]
    for one in followed or situation.indices:
        if is_of_another_cluster(situation, one):
            return [_lost_cluster(situation, one)]
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
        yield Wait(f"{', '.join(closed)} is closed: open it, or delete it to start again")
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
                return [_lost_cluster(situation, one)]
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
    target = _to_roll_back_to(situation, asked)
    if target is None and asked.target:
        return [_deleted(asked.target)]
    if target is None:
        return [
            Refuse(f"nothing to roll back to: no other index of {situation.view} was served before")
        ]
    if is_of_another_cluster(situation, target):
        return [Refuse(_other_cluster(target))]
    if is_of_another_topic(situation, target) and any(
        are_of_different_topics(one, target) for one in situation.serving
    ):
        return [
            Refuse(
                f"{target.name} has the events of a topic that was deleted and created again: no "
                "worker keeps it up to date, so queries would find what was there then for ever"
            )
        ]
    for one in () if asked.target else situation.serving:
        if one.closed or one.checkpoints is None:
            return [Refuse(_cannot_be_compared(situation, one))]
    return [_cut_over(situation, target)]


def _to_roll_back_to(situation: Situation, asked: RollBack) -> IndexState | None:
    """Return the target, or the newest index that was served before; None if it is not there."""
    if asked.target:
        return situation.find(asked.target)
    former = [one for one in situation.indices if one.served and not one.serving]
    return former[-1] if former else None


def _cut_over(situation: Situation, target: IndexState, *, abandon: bool = False) -> Action:
    """Plan to let queries read a followed index, and no other one."""
    if situation.bearers == (target.name,):
        return Done(target)
    if target.closed:
        return _closed(target)
    if target.checkpoints is None:
        return Wait(f"{target.name} cannot be read", target)
    if not situation.has_workers:
        is_ours = target.definition == situation.definition
        program = "this program" if is_ours else "the program that created it"
        return Wait(
            f"no worker follows {target.name}, so it would be out of date at once: start a view "
            f"worker of {program} (`cqrs worker {situation.role}`), then run this again; it "
            "continues from here",
            target,
        )
    is_running = (
        f"is a view worker of the program that created it running (`cqrs worker {situation.role}`)?"
    )
    if not is_complete(target):
        return Wait(f"{target.name} does not have all events yet: {is_running}", target)
    for one in situation.serving:
        if one is target or abandon or are_of_different_topics(one, target):
            continue
        if one.closed or one.checkpoints is None:
            return Wait(_cannot_be_compared(situation, one), target)
        earlier = (same for same in situation.just_before if same.key == one.key)
        behind = partitions_behind(target, next(earlier, one))
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


def _lost_cluster(situation: Situation, index: IndexState) -> Refuse:
    return Refuse(
        f"{_other_cluster(index)}; or, if that cluster is lost, `cqrs views rebuild "
        f"{situation.view} --abandon-serving`"
    )


def _other_cluster(index: IndexState) -> str:
    return (
        f"{index.name} has the events of another Kafka cluster: use its own brokers "
        "(CQRS_BOOTSTRAP_SERVERS), or another CQRS_NAMESPACE"
    )
