"""What happens to the indices of a view, as given, when, then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from streams.views.checkpoint import Checkpoint
from streams.views.lifecycle import (
    Action,
    Asked,
    Create,
    Delete,
    Done,
    Follow,
    Load,
    Project,
    Prune,
    Rebuild,
    Refuse,
    RollBack,
    Serve,
    Strip,
    Wait,
    Warn,
    Work,
    definition_to_follow,
    plan,
)
from streams.views.situation import (
    EventLog,
    IndexState,
    Situation,
    is_complete,
    partitions_behind,
    trouble,
)

LOG = EventLog("cluster", "topic", 2)


def progress(*positions: int, topic: str = "topic", cluster: str = "cluster") -> Mapping[int, Any]:
    return {
        number: Checkpoint(position, position - 1, 1, cluster, topic=topic)
        for number, position in enumerate(positions)
    }


def index(number: int, **changes: Any) -> IndexState:
    """An index of this program, in which all ten events of both partitions are."""
    made = IndexState(
        name=f"view-v{number}",
        number=number,
        uuid=f"u{number}",
        definition="this",
        wanted={0: 10, 1: 10},
        partitions=2,
        checkpoints=progress(10, 10),
    )
    return but(made, **changes)


def but(state: IndexState, **changes: Any) -> IndexState:
    """The same index in another state."""
    return replace(state, **changes)


BUILDING = index(1)
FOLLOWED = index(1, followed=True)
FORMER = index(1, followed=True, served=True)
SERVING = index(1, followed=True, served=True, serving=True)
NEXT = index(2, followed=True)
NEXT_SERVING = index(2, followed=True, served=True, serving=True)
HALF: dict[str, Any] = {"checkpoints": progress(10, 9)}
UNREADABLE: dict[str, Any] = {"checkpoints": None}
CLOSED: dict[str, Any] = {"closed": True, "checkpoints": None}
ANOTHER: dict[str, Any] = {"definition": "another"}
COPY = but(NEXT, borrowed=frozenset({"view-v1-writes"}))
STRANGER = {"restored": frozenset({"view", "view-v1-writes"})}


def given(*indices: IndexState, **changes: Any) -> Situation:
    situation = Situation("users", "views", "view", "this", LOG, indices)
    return replace(situation, **changes)


def one(situation: Situation, asked: Asked) -> Action:
    (action,) = plan(situation, asked)
    return action


def refusal(situation: Situation, asked: Asked) -> str:
    action = one(situation, asked)
    assert isinstance(action, Refuse)
    return action.line


# When it is complete


@pytest.mark.parametrize(
    ("wanted", "found", "complete"),
    [
        ({0: 10, 1: 10}, progress(10, 10), True),
        ({0: 10, 1: 10}, progress(10, 9), False),
        ({0: 10, 1: 10}, progress(11), False),  # of one partition nothing is known
        ({0: 10, 1: 10}, None, False),
        ({}, progress(0, 0), True),
    ],
)
def test_an_index_is_complete_if_it_is_so_in_every_partition(
    wanted: Mapping[int, int], found: Mapping[int, Checkpoint] | None, complete: bool
) -> None:
    assert is_complete(index(1, wanted=wanted, checkpoints=found)) is complete


def test_an_index_is_behind_if_it_lacks_an_event_of_the_same_command() -> None:
    first, both = (
        index(1, checkpoints={0: Checkpoint(9, 5, 1), 1: Checkpoint(3, 2, 1)}),
        index(2, checkpoints={0: Checkpoint(9, 5, 2), 1: Checkpoint(7, 2, 1)}),
    )
    assert (partitions_behind(first, both), partitions_behind(both, first)) == (1, 0)
    assert partitions_behind(index(1, checkpoints=None), both) == 2


def test_an_index_is_behind_whose_last_command_was_on_a_former_command_topic() -> None:
    """The command topic was created again and adopted: its offsets began at 0 again."""
    former = index(1, checkpoints={0: Checkpoint(2000, 1000, 7, event_offset=1990)})
    serving = index(2, checkpoints={0: Checkpoint(2600, 300, 1, event_offset=2590)})
    assert (partitions_behind(former, serving), partitions_behind(serving, former)) == (1, 0)
    nothing = index(3, checkpoints={0: Checkpoint()})
    assert (partitions_behind(nothing, former), partitions_behind(former, nothing)) == (1, 0)


def test_a_checkpoint_of_an_older_version_is_compared_by_its_command() -> None:
    older = index(1, checkpoints={0: Checkpoint(2000, 1000, 7)})
    newer = index(2, checkpoints={0: Checkpoint(2600, 1300, 1, event_offset=2590)})
    assert (partitions_behind(older, newer), partitions_behind(newer, older)) == (1, 0)


@pytest.mark.parametrize("asked", [Rebuild(NEXT.key), RollBack(NEXT.key)])
def test_a_cutover_compares_with_what_served_a_moment_ago(asked: Asked) -> None:
    """While events come, two indices are never at the same ones in all partitions."""
    serving, target = (
        but(SERVING, checkpoints=progress(12, 11)),
        but(NEXT, checkpoints=progress(11, 11)),
    )
    before = but(SERVING, checkpoints=progress(11, 11))
    assert one(given(serving, target, just_before=[before]), asked) == Serve(
        target, (SERVING.name,)
    )
    ahead = but(SERVING, checkpoints=progress(11, 12))
    assert isinstance(one(given(serving, target, just_before=[ahead]), asked), Wait)
    assert isinstance(one(given(serving, target), asked), Wait)
    another = but(SERVING, uuid="another", checkpoints=progress(11, 11))
    assert isinstance(one(given(serving, target, just_before=[another]), asked), Wait)


# A worker


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        # the first one, and one after all were deleted
        (given(), [Create(1, followed=True)]),
        (given(index(3, **ANOTHER)), [Create(4, followed=True)]),
        # left by a rebuild, or restored without its aliases
        (given(BUILDING), [Follow(BUILDING)]),
        (given(index(1, **HALF), index(2, **HALF)), [Follow(index(2, **HALF))]),
        # half a view is kept up to date, and not shown
        (given(but(FOLLOWED, **HALF)), [Project(but(FOLLOWED, **HALF))]),
        (given(FOLLOWED), [Serve(FOLLOWED, ()), Project(FOLLOWED)]),
        (given(SERVING), [Project(SERVING)]),
        # people read the one, the other goes at its own pace
        (given(SERVING, NEXT), [Project(SERVING, (NEXT,))]),
        (given(FORMER, NEXT_SERVING), [Project(NEXT_SERVING, (FORMER,))]),
        (
            given(but(FORMER, **UNREADABLE), NEXT_SERVING),
            [Project(NEXT_SERVING, (but(FORMER, **UNREADABLE),))],
        ),
        (given(but(FORMER, **CLOSED), NEXT_SERVING), [Project(NEXT_SERVING)]),
        # the alias was lost: the one that has most is shown
        (
            given(FORMER, but(NEXT, checkpoints=progress(10, 12))),
            [
                Serve(but(NEXT, checkpoints=progress(10, 12)), ()),
                Project(but(NEXT, checkpoints=progress(10, 12)), (FORMER,)),
            ],
        ),
        (
            given(but(FORMER, checkpoints=progress(10, 12)), NEXT),
            [
                Serve(but(FORMER, checkpoints=progress(10, 12)), ()),
                Project(NEXT, (but(FORMER, checkpoints=progress(10, 12)),)),
            ],
        ),
        # the one that people read is lost: it is waited for, and no other one is shown
        (given(but(SERVING, **UNREADABLE)), [Project(but(SERVING, **UNREADABLE))]),
        (
            given(but(SERVING, **UNREADABLE), NEXT),
            [Project(but(SERVING, **UNREADABLE), (NEXT,))],
        ),
        # closed: no new one is made
        (given(but(NEXT_SERVING, **CLOSED)), [Project(but(NEXT_SERVING, **CLOSED))]),
        (given(but(FORMER, **CLOSED)), [Project(but(FORMER, **CLOSED))]),
        # aliases that somebody took away
        (
            given(but(SERVING, writable=False)),
            [Follow(but(SERVING, writable=False)), Project(but(SERVING, writable=False))],
        ),
        (
            given(but(SERVING, followed=False)),
            [Follow(but(SERVING, followed=False)), Project(but(SERVING, followed=False))],
        ),
        # two programs side by side: each has its own
        (given(but(SERVING, **ANOTHER), NEXT), [Project(NEXT)]),
        # the alias is on two of the view's, or on a stranger as well
        (
            given(SERVING, NEXT_SERVING),
            [Serve(NEXT_SERVING, ("view-v1", "view-v2")), Project(NEXT_SERVING, (SERVING,))],
        ),
        (
            given(SERVING, but(NEXT_SERVING, **HALF)),
            [
                Serve(SERVING, ("view-v1", "view-v2")),
                Project(but(NEXT_SERVING, **HALF), (SERVING,)),
            ],
        ),
        (
            given(SERVING, strangers=STRANGER),
            [
                Strip("restored", frozenset({"view-v1-writes"})),
                Serve(SERVING, ("view-v1", "restored")),
                Project(SERVING),
            ],
        ),
        # a copy with the view's next number has brought along what only the first may have
        (
            given(SERVING, COPY),
            [Strip("view-v2", COPY.borrowed), Project(SERVING, (COPY,))],
        ),
        # the only one that people can read is a stranger: until there is a complete one
        (
            given(but(FOLLOWED, **HALF), strangers={"restored": frozenset({"view"})}),
            [Project(but(FOLLOWED, **HALF))],
        ),
    ],
)
def test_a_worker(situation: Situation, expected: list[Action]) -> None:
    assert plan(situation, Work()) == expected


def test_a_worker_waits_for_a_closed_index_instead_of_making_another_one() -> None:
    action = one(given(index(4, **CLOSED)), Work())
    assert action == Wait("view-v4 is closed: open it, or delete it to start again")


def test_a_worker_says_that_no_query_is_answered() -> None:
    found = given(but(SERVING, **CLOSED), strangers={"restored": frozenset({"view"})})
    warning, _ = plan(found, Work())
    assert isinstance(warning, Warn)
    assert "view is on view-v1, restored: no query is answered" in warning.line


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (ANOTHER, "in view-v1, but another program created it"),
        ({"shards": 3}, "it has 3 shards"),
        ({"partitions": 4}, "made of 4 partitions of the event topic, which has 2"),
        (
            {"partitions": None, "wanted": {0: 1}},
            "made of 1 partitions of the event topic, which has 2",
        ),
        ({"topic": "former"}, "it has the events of a topic that was deleted and created again"),
        (
            {"checkpoints": progress(3, 3, topic="former")},
            "it has the events of a topic that was deleted and created again",
        ),
    ],
)
def test_a_worker_refuses_what_it_must_not_write_to(changes: dict[str, Any], why: str) -> None:
    line = refusal(given(but(SERVING, **changes)), Work())
    assert why in line
    assert "run `cqrs views rebuild users`, and then this worker" in line


def test_an_index_of_an_older_version_does_not_name_its_topic() -> None:
    older = but(SERVING, partitions=None, checkpoints=progress(10, 10, topic=""))
    assert plan(given(older), Work()) == [Project(older)]


def test_an_index_of_another_cluster_is_refused_with_a_line_of_its_own() -> None:
    found = given(but(SERVING, checkpoints=progress(3, 3, cluster="other")))
    for asked in (Work(), Rebuild()):
        line = refusal(found, asked)
        assert line.startswith("view-v1 has the events of another Kafka cluster")
        assert "if that cluster is lost, `cqrs views rebuild users --abandon-serving`" in line


def test_the_way_out_if_the_cluster_of_an_index_is_lost() -> None:
    """The topics were restored in another cluster, where they have other ids."""
    lost = but(SERVING, checkpoints=progress(13, 13, cluster="other", topic="lost"))
    abandon = Rebuild(abandon=True)
    assert plan(given(lost), abandon) == [Create(2, followed=False)]
    assert plan(given(lost, index(2)), abandon) == [Load(index(2))]
    # now a worker has an index to follow, and then it is shown
    assert plan(given(lost, NEXT), Work()) == [Project(NEXT)]
    assert plan(given(lost, NEXT), abandon) == [Serve(NEXT, ("view-v1",))]
    former = but(lost, serving=False)
    assert plan(given(former, NEXT_SERVING), Work()) == [Project(NEXT_SERVING)]
    assert plan(given(former, NEXT_SERVING), Prune()) == [Delete(former, ("view-v2",))]


@pytest.mark.parametrize("asked", [Work(), Rebuild(), RollBack(), Prune()])
def test_an_index_with_the_name_of_the_alias(asked: Asked) -> None:
    assert "an index is called view" in refusal(given(is_index=True), asked)


# A rebuild


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (given(), [Create(1, followed=False)]),
        (given(SERVING), [Create(2, followed=False)]),
        (given(SERVING, index(2, **CLOSED)), [Create(3, followed=False)]),
        (given(BUILDING), [Load(BUILDING)]),
        (given(SERVING, index(2)), [Load(index(2))]),
        (
            given(SERVING, index(2, **ANOTHER)),
            [Delete(index(2, **ANOTHER), ("view-v1",)), Create(3, followed=False)],
        ),
        # nothing is deleted while nobody reads anything
        (given(index(2, **ANOTHER)), [Create(3, followed=False)]),
        # where an earlier one was stopped
        (given(SERVING, NEXT), [Serve(NEXT, ("view-v1",))]),
        # of another topic: nothing can be compared
        (
            given(but(SERVING, checkpoints=progress(99, 99, topic="former")), NEXT),
            [Serve(NEXT, ("view-v1",))],
        ),
        # the alias is on two: the new one takes it from both
        (
            given(SERVING, NEXT_SERVING, index(3, followed=True)),
            [Serve(index(3, followed=True), ("view-v1", "view-v2"))],
        ),
    ],
)
def test_a_rebuild(situation: Situation, expected: list[Action]) -> None:
    assert plan(situation, Rebuild()) == expected


@pytest.mark.parametrize(
    ("situation", "line"),
    [
        # a worker is making the first one
        (given(but(FOLLOWED, **HALF)), "view-v1 does not have all events yet"),
        (given(SERVING, but(NEXT, **HALF)), "view-v2 does not have all events yet"),
        (
            given(but(SERVING, checkpoints=progress(11, 10)), NEXT),
            "view-v2 is behind in 1 partitions and does not catch up: is a view worker",
        ),
        (given(SERVING, NEXT, has_workers=False), "start a view worker of this program"),
        (given(SERVING, but(NEXT, **UNREADABLE)), "view-v2 cannot be read"),
    ],
)
def test_a_rebuild_waits(situation: Situation, line: str) -> None:
    action = one(situation, Rebuild())
    assert isinstance(action, Wait)
    assert line in action.line
    assert action.index == situation.indices[-1]


@pytest.mark.parametrize("lost", [CLOSED, UNREADABLE])
def test_a_serving_index_that_is_lost_can_be_given_up(lost: dict[str, Any]) -> None:
    gone = but(SERVING, **lost)
    for situation in (given(gone), given(gone, NEXT)):
        assert "cqrs views rebuild users --abandon-serving" in refusal(situation, Rebuild())
    # it was still there when this one was begun
    waiting = one(given(gone, NEXT), Rebuild(target=NEXT.key))
    assert isinstance(waiting, Wait)
    assert "--abandon-serving" in waiting.line
    assert plan(given(gone), Rebuild(abandon=True)) == [Create(2, followed=False)]
    assert plan(given(gone, NEXT), Rebuild(abandon=True)) == [Serve(NEXT, ("view-v1",))]
    # never for half a view
    half = one(given(gone, but(NEXT, **HALF)), Rebuild(abandon=True))
    assert isinstance(half, Wait)


def test_a_rebuild_keeps_to_its_index() -> None:
    mine = Rebuild(target=NEXT.key)
    assert one(given(SERVING, index(2)), mine) == Load(index(2))
    assert one(given(FORMER, NEXT_SERVING), mine) == Done(NEXT_SERVING)
    newer = index(3, followed=True)
    assert one(given(SERVING, NEXT, newer), mine) == Serve(NEXT, ("view-v1",))
    for found in (given(SERVING), given(SERVING, but(NEXT, uuid="again"))):
        assert refusal(found, mine) == "view-v2 was deleted meanwhile: run this again"
    other = but(NEXT, topic="former")
    assert "is of no use any more, it has the events of a topic" in refusal(given(other), mine)
    for state in (index(2, **CLOSED), but(NEXT, **CLOSED)):
        assert "view-v2 is closed: open it" in refusal(given(SERVING, state), mine)


# The way back


def test_rolling_back() -> None:
    assert one(given(FORMER, NEXT_SERVING), RollBack()) == Serve(FORMER, ("view-v2",))
    back = RollBack(target=FORMER.key)
    assert one(given(SERVING, index(2, followed=True, served=True)), back) == Done(SERVING)
    assert "was deleted meanwhile" in refusal(given(NEXT_SERVING), back)
    assert "nothing to roll back to: no other index of users" in refusal(given(SERVING), RollBack())
    closed = given(but(FORMER, **CLOSED), NEXT_SERVING)
    assert "view-v1 is closed: open it" in refusal(closed, RollBack())
    behind = given(but(FORMER, checkpoints=progress(9, 10), wanted={}), NEXT_SERVING)
    assert isinstance(one(behind, RollBack()), Wait)
    lost = given(FORMER, but(NEXT_SERVING, **UNREADABLE))
    assert "--abandon-serving" in refusal(lost, RollBack())


@pytest.mark.parametrize(
    ("definition", "serving", "program"),
    [("this", "another", "this program"), ("another", "this", "the program that created it")],
)
def test_rolling_back_to_an_index_of_another_program_waits_for_a_worker_of_it(
    definition: str, serving: str, program: str
) -> None:
    former = but(FORMER, definition=definition)
    found = given(former, but(NEXT_SERVING, definition=serving))
    assert definition_to_follow(found, RollBack()) == definition
    assert definition_to_follow(found, RollBack(target=former.key)) == definition
    waiting = one(replace(found, has_workers=False), RollBack())
    assert isinstance(waiting, Wait)
    assert "no worker follows view-v1, so it would be out of date at once" in waiting.line
    assert f"start a view worker of {program} (`cqrs worker views`)" in waiting.line
    assert waiting.index == former


def test_rolling_back_to_an_index_of_the_same_program_needs_no_worker() -> None:
    """It gets what the serving one gets, and what that one contains may be why no worker runs."""
    assert definition_to_follow(given(FORMER, NEXT_SERVING), RollBack()) is None
    assert definition_to_follow(given(SERVING), RollBack()) is None


def test_a_rebuild_needs_a_worker_of_this_program() -> None:
    for found in (given(), given(but(SERVING, **ANOTHER)), given(SERVING, NEXT)):
        assert definition_to_follow(found, Rebuild()) == "this"


def test_two_indices_of_a_former_topic_are_compared() -> None:
    former = {"topic": "former"}
    serving = but(NEXT_SERVING, **former, checkpoints=progress(11, 10, topic="former"))
    behind = but(FORMER, **former, checkpoints=progress(10, 10, topic="former"))
    assert isinstance(one(given(behind, serving), RollBack()), Wait)
    level = but(behind, checkpoints=serving.checkpoints)
    assert one(given(level, serving), RollBack()) == Serve(level, ("view-v2",))


def test_nobody_rolls_back_to_an_index_that_no_worker_keeps_up_to_date() -> None:
    """The event topic was created again, and the view rebuilt from it."""
    for target in (None, FORMER.key):
        back = RollBack(target=target)
        former = but(FORMER, topic="former", checkpoints=progress(9, 9, topic="former"))
        line = refusal(given(former, NEXT_SERVING), back)
        assert line.startswith("view-v1 has the events of a topic that was deleted and created")
        elsewhere = but(FORMER, checkpoints=progress(10, 10, cluster="another"))
        line = refusal(given(elsewhere, NEXT_SERVING), back)
        assert line.startswith("view-v1 has the events of another Kafka cluster")


# Deleting


def test_pruning_needs_names_and_aliases_only() -> None:
    blind = {"checkpoints": None}
    serving, former = but(NEXT_SERVING, **blind), but(FORMER, **blind)
    closed, left = index(3, **CLOSED), index(4, **blind, **ANOTHER)
    found = given(former, serving, closed, left, log=None)
    assert plan(found, Prune()) == [Delete(one, ("view-v2",)) for one in (former, closed, left)]
    assert plan(given(serving, log=None), Prune()) == []
    assert plan(given(log=None), Prune()) == []


def test_pruning_deletes_nothing_while_nobody_reads_the_view() -> None:
    for first in (FOLLOWED, FORMER, BUILDING):
        assert "no index of users serves queries" in refusal(given(first, NEXT), Prune())
    closed = given(FORMER, but(NEXT_SERVING, **CLOSED))
    assert "view-v2 serves queries and is closed" in refusal(closed, Prune())
    assert "view is on view-v1, view-v2" in refusal(given(SERVING, NEXT_SERVING), Prune())


# For people


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (SERVING, None),
        (but(SERVING, **CLOSED), "closed: open it"),
        (but(SERVING, **UNREADABLE), "cannot be read"),
        (but(SERVING, **ANOTHER), None),
        (but(SERVING, writable=False), "lacks an alias for writing"),
        (but(SERVING, shards=2), "it has 2 shards: its checkpoints hold for one shard only"),
        (
            but(SERVING, checkpoints=progress(1, 1, cluster="other")),
            "has the events of another Kafka cluster",
        ),
    ],
)
def test_what_is_wrong_with_an_index(state: IndexState, text: str | None) -> None:
    assert trouble(given(state), state) == text


def test_what_is_wrong_with_two() -> None:
    assert trouble(given(SERVING, NEXT_SERVING), SERVING) == "view is on view-v1, view-v2"


def test_what_an_index_is_called() -> None:
    assert [one.state for one in (BUILDING, FORMER, SERVING)] == ["building", "followed", "serving"]
