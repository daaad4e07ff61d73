"""Workers, rebuilds and people do anything to the indices of a view, in any order.

Each worker and each command looks, and carries out what it planned some time later, when others
have acted. `Cluster` does what Elasticsearch does: a request that changes aliases happens wholly or
not at all, and only if the aliases that it names are there. Nobody may ever read half a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streams.views import lifecycle
from streams.views.checkpoint import Checkpoint
from streams.views.lifecycle import (
    Action,
    Asked,
    Create,
    Delete,
    Done,
    Follow,
    Load,
    Prune,
    Rebuild,
    Refuse,
    RollBack,
    Serve,
    Strip,
    Wait,
    Work,
    plan,
)
from streams.views.situation import EventLog, IndexState, Key, Situation, why_foreign

PARTITIONS = 2
ALIAS, FOLLOWED, SERVED = "view", "view-followed", "view-served"
WORKERS = ("worker 1", "worker 2")
COMMANDS: dict[str, Asked] = {
    "rebuild 1": Rebuild(),
    "rebuild 2": Rebuild(),
    "rebuild --abandon-serving": Rebuild(abandon=True),
    "rollback": RollBack(),
    "prune": Prune(),
}
ACTORS = (*WORKERS, *COMMANDS)


class ChangedMeanwhileError(Exception):
    """Elasticsearch refuses an action: it was planned for what is no longer so."""


@dataclass
class Index:
    """An index as it is."""

    number: int
    uuid: str
    identity: str
    wanted: dict[int, int]
    aliases: set[str]
    positions: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    topic: str = ""
    made_for: str = ""
    closed: bool = False
    readable: bool = True

    @property
    def name(self) -> str:
        return f"view-v{self.number}"

    @property
    def complete(self) -> bool:
        return all(self.positions[number] >= end for number, end in self.wanted.items())


class Cluster:
    """Elasticsearch with the indices of one view, and the event topic."""

    def __init__(self) -> None:
        self.ends = dict.fromkeys(range(PARTITIONS), 0)
        self.topic = "topic 0"
        self.adopted = {number: [0] for number in range(PARTITIONS)}
        """Where events of another command topic begin, whose offsets begin at 0 again."""
        self.indices: dict[str, Index] = {}
        self.strangers: dict[str, set[str]] = {}
        self._made = 0

    def look(self) -> Situation:
        states = sorted(self._states(), key=lambda state: state.number)
        return Situation(
            view="users",
            role="views",
            alias=ALIAS,
            definition="this",
            log=EventLog("cluster", self.topic, PARTITIONS),
            indices=tuple(states),
            strangers={name: frozenset(found) for name, found in self.strangers.items() if found},
        )

    def _states(self) -> Iterator[IndexState]:
        for name, index in self.indices.items():
            checkpoints = {
                number: self._checkpoint(number, position, index.topic)
                for number, position in index.positions.items()
            }
            yield IndexState(
                name=name,
                number=index.number,
                uuid=index.uuid,
                definition="this",
                wanted=dict(index.wanted),
                partitions=PARTITIONS,
                topic=index.made_for,
                identity=index.identity,
                followed=FOLLOWED in index.aliases,
                serving=ALIAS in index.aliases,
                served=SERVED in index.aliases,
                writable={f"{name}-writes", index.identity} <= index.aliases,
                closed=index.closed,
                checkpoints=checkpoints if index.readable and not index.closed else None,
            )

    def _checkpoint(self, number: int, position: int, topic: str) -> Checkpoint:
        event = position - 1
        begun = max((one for one in self.adopted[number] if one <= event), default=0)
        return Checkpoint(position, event - begun, 1, "cluster", topic=topic, event_offset=event)

    def bearers(self) -> set[str]:
        ours = {name for name, index in self.indices.items() if ALIAS in index.aliases}
        return ours | {name for name, found in self.strangers.items() if ALIAS in found}

    def seen(self) -> Index | None:
        """The index that queries are answered from; with two of them none is."""
        bearers = self.bearers()
        index = self.indices.get(next(iter(bearers))) if len(bearers) == 1 else None
        return index if index is not None and index.readable and not index.closed else None

    def carry_out(self, action: Action) -> None:
        """Do what was planned, or raise `ChangedMeanwhileError` and change nothing."""
        match action:
            case Create(number, followed):
                name = f"view-v{number}"
                if name in self.indices:
                    return
                self._made += 1
                identity = f"{name}-is-{self._made}"
                aliases = {f"{name}-writes", identity} | ({FOLLOWED} if followed else set())
                self.indices[name] = Index(
                    number,
                    f"u{self._made}",
                    identity,
                    dict(self.ends),
                    aliases,
                    made_for=self.topic,
                )
            case Follow(state):
                index = self._identified(state)
                index.aliases |= {f"{state.name}-writes", index.identity, FOLLOWED}
            case Serve(state, away_from):
                index = self._identified(state)
                self._require_bearers(away_from)
                for name in away_from:
                    self._aliases(name).discard(ALIAS)
                for other in self.indices.values():
                    if not other.closed:  # the wildcard finds open ones
                        other.aliases.discard(ALIAS)
                index.aliases |= {ALIAS, SERVED}
            case Strip(name, aliases):
                self.strangers.get(name, set()).difference_update(aliases)
            case Delete(state, serving):
                self._require_bearers(serving)
                self.indices.pop(state.name, None)
            case Load(state):
                index = self._identified(state)
                if index.uuid != state.uuid or index.closed or not index.readable:
                    raise ChangedMeanwhileError
                if index.made_for != self.topic:  # a rebuild asks for the topic when it has loaded
                    raise ChangedMeanwhileError
                index.positions, index.topic = dict(self.ends), self.topic
                index.aliases.add(FOLLOWED)
            case _:
                pass

    def project(self, index: Index, partition: int, events: int) -> None:
        index.topic = self.topic
        index.positions[partition] = min(self.ends[partition], index.positions[partition] + events)

    def followed(self) -> list[Index]:
        """The indices that a worker writes to."""
        situation = self.look()
        return [
            self.indices[state.name]
            for state in situation.indices
            if state.followed
            and state.writable
            and state.checkpoints is not None
            and why_foreign(situation, state) is None
        ]

    def _aliases(self, name: str) -> set[str]:
        if name in self.indices:
            return self.indices[name].aliases
        return self.strangers.setdefault(name, set())

    def _identified(self, state: IndexState) -> Index:
        """The index, if it is the one that was seen: it has the alias that only that one has."""
        index = self.indices.get(state.name)
        if index is None or (state.writable and state.identity not in index.aliases):
            raise ChangedMeanwhileError
        if not state.writable and index.uuid != state.uuid:
            raise ChangedMeanwhileError
        return index

    def _require_bearers(self, names: tuple[str, ...]) -> None:
        if any(ALIAS not in self._aliases(name) for name in names):
            raise ChangedMeanwhileError


@dataclass
class Planned:
    """What an actor is about to do."""

    actions: list[Action] = field(default_factory=list)
    target: Key | None = None


class Lifecycle(RuleBasedStateMachine):
    """Everybody acts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.snapshots: list[Index] = []
        self.planned = {actor: Planned() for actor in ACTORS}

    @initialize(
        ends=st.lists(st.integers(0, 3), min_size=PARTITIONS, max_size=PARTITIONS),
        begun=st.sampled_from(("nothing", "first", "second")),
    )
    def begin(self, ends: list[int], begun: str) -> None:
        """Begin with no index, with one that is served, or with a rebuilt one beside it."""
        self.cluster.ends = dict(enumerate(ends))
        if begun != "nothing":
            self.take_turns("worker 1", 1)
            self.project_all(3)
            self.take_turns("worker 1", 2)
        if begun == "second":
            self.take_turns("rebuild 1", 2)

    # Workers and commands

    @rule(actor=st.sampled_from(ACTORS))
    def look(self, actor: str) -> None:
        self._look(actor)

    def _look(self, actor: str) -> Situation:
        planned, situation = self.planned[actor], self.cluster.look()
        asked = COMMANDS.get(actor, Work())
        if isinstance(asked, Rebuild | RollBack):
            asked = replace(asked, target=planned.target)
        planned.actions = plan(situation, asked)
        for action in planned.actions:
            if isinstance(action, Load | Serve | Wait) and action.index is not None:
                planned.target = action.index.key
            if isinstance(action, Done | Refuse):
                planned.target = None
        self._never_behind(situation, planned.actions, asked)
        return situation

    def _never_behind(self, situation: Situation, actions: list[Action], asked: Asked) -> None:
        """Nobody plans to show less than what is shown."""
        seen = self.cluster.seen()
        for action in actions:
            if not isinstance(action, Serve):
                continue
            shown = self.cluster.indices[action.index.name]
            assert shown.complete
            abandons = isinstance(asked, Rebuild) and asked.abandon
            if seen is not None and seen.topic == shown.topic and not abandons:
                assert all(
                    shown.positions[number] >= position
                    for number, position in seen.positions.items()
                )

    @rule(actor=st.sampled_from(ACTORS), times=st.integers(1, 3))
    def take_turns(self, actor: str, times: int) -> None:
        """Look and act, with nobody in between."""
        for _ in range(times):
            self._look(actor)
            while self.planned[actor].actions:
                self._act(actor)

    @precondition(lambda self: any(planned.actions for planned in self.planned.values()))
    @rule(data=st.data())
    def act_late(self, data: st.DataObject) -> None:
        """Carry out the next planned action, whatever has happened since."""
        late = [actor for actor in ACTORS if self.planned[actor].actions]
        self._act(data.draw(st.sampled_from(late)))

    def _act(self, actor: str) -> None:
        planned = self.planned[actor]
        action = planned.actions.pop(0)
        try:
            self.cluster.carry_out(action)
        except ChangedMeanwhileError:
            planned.actions.clear()
            return
        if isinstance(action, Serve):
            ours = {name for name in self.cluster.bearers() if name in self.cluster.indices}
            closed = {name for name in ours if self.cluster.indices[name].closed}
            assert ours - closed <= {action.index.name}

    def project_all(self, events: int) -> None:
        for index in self.cluster.followed():
            for partition in range(PARTITIONS):
                self.cluster.project(index, partition, events)

    @rule(partition=st.integers(0, PARTITIONS - 1), events=st.integers(1, 3), data=st.data())
    def project(self, partition: int, events: int, data: st.DataObject) -> None:
        followed = self.cluster.followed()
        if followed:
            self.cluster.project(data.draw(st.sampled_from(followed)), partition, events)

    # Producers and people

    @rule(partition=st.integers(0, PARTITIONS - 1), events=st.integers(1, 3))
    def events_come(self, partition: int, events: int) -> None:
        self.cluster.ends[partition] += events

    @rule(data=st.data())
    def somebody_meddles(self, data: st.DataObject) -> None:
        """One rule for all of it, so that those of workers and commands come often enough."""
        cluster, now = self.cluster, ["create the topic again", "adopt another command topic"]
        if cluster.indices:
            now += ["close", "open", "lose", "repair", "delete", "take an alias away", "snapshot"]
        if self.snapshots:
            now += ["restore", "restore beside"]
        match data.draw(st.sampled_from(now)):
            case "create the topic again":
                cluster.topic = f"topic {int(cluster.topic[6:]) + 1}"
                cluster.ends = dict.fromkeys(range(PARTITIONS), 1)
                cluster.adopted = {number: [0] for number in range(PARTITIONS)}
            case "adopt another command topic":
                for number, end in cluster.ends.items():
                    cluster.adopted[number].append(end)
            case ("close" | "open") as step:
                self._any(data).closed = step == "close"
            case ("lose" | "repair") as step:
                self._any(data).readable = step == "repair"
            case "delete":
                del cluster.indices[self._any(data).name]
            case "take an alias away":
                aliases = self._any(data).aliases
                if aliases:
                    aliases.discard(data.draw(st.sampled_from(sorted(aliases))))
            case "snapshot":
                self.snapshots.append(_copy(self._any(data)))
            case step:
                self._restore(data, beside=step == "restore beside")

    def _any(self, data: st.DataObject) -> Index:
        return self.cluster.indices[data.draw(st.sampled_from(sorted(self.cluster.indices)))]

    def _restore(self, data: st.DataObject, *, beside: bool) -> None:
        index = _copy(data.draw(st.sampled_from(self.snapshots)))
        if beside:
            self.cluster.strangers[f"restored-{index.name}"] = index.aliases
        elif index.name not in self.cluster.indices or self.cluster.indices[index.name].closed:
            self.cluster.indices[index.name] = index
            if data.draw(st.booleans()):
                index.aliases.clear()

    # What always holds

    @invariant()
    def nobody_reads_half_a_view(self) -> None:
        seen = self.cluster.seen()
        assert seen is None or seen.complete

    def teardown(self) -> None:
        """Once people leave it alone, a worker and a rebuild get everything right."""
        for index in self.cluster.indices.values():
            index.closed, index.readable = False, True
        for planned in self.planned.values():
            planned.actions.clear()
        for _ in range(60):
            for actor in ("worker 1", "rebuild --abandon-serving"):
                if actor != "worker 1" and not self._worker_needs_a_rebuild():
                    continue
                self._look(actor)
                while self.planned[actor].actions:
                    self._act(actor)
            for index in self.cluster.followed():
                for partition in range(PARTITIONS):
                    self.cluster.project(index, partition, 100)
        seen = self.cluster.seen()
        assert seen is not None
        assert (seen.topic, seen.positions) == (self.cluster.topic, self.cluster.ends)
        assert not any(self.cluster.strangers.values())

    def _worker_needs_a_rebuild(self) -> bool:
        """A worker refuses, or people read an index that it must not write to."""
        situation = self.cluster.look()
        return any(isinstance(action, Refuse) for action in plan(situation, Work())) or any(
            why_foreign(situation, one) for one in situation.serving
        )


def _copy(index: Index) -> Index:
    return replace(
        index,
        wanted=dict(index.wanted),
        aliases=set(index.aliases),
        positions=dict(index.positions),
        closed=False,
        readable=True,
    )


def test_nobody_ever_reads_half_a_view() -> None:
    run_state_machine_as_test(
        Lifecycle, settings=settings(max_examples=250, stateful_step_count=50, deadline=None)
    )


@pytest.mark.parametrize(
    ("decision", "wrong"),
    [
        ("is_complete", lambda _: True),
        ("partitions_behind", lambda *_: 0),
        ("why_foreign", lambda *_: None),
    ],
)
def test_a_fault_in_what_is_decided_is_found(
    monkeypatch: pytest.MonkeyPatch, decision: str, wrong: Callable[..., object]
) -> None:
    """With any of them people read less than there was, or never get all of it again."""
    monkeypatch.setattr(lifecycle, decision, wrong)
    with pytest.raises(AssertionError):
        run(max_examples=1000, phases=[Phase.generate], derandomize=True, database=None)


def run(**changes: Any) -> None:
    """For a look by hand: `python -c 'from ... import run; run(max_examples=20_000)'`."""
    chosen = settings(stateful_step_count=60, deadline=None, **changes)
    run_state_machine_as_test(Lifecycle, settings=chosen)
