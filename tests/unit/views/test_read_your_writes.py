"""Queries wait until the view shows a token's writes. The tests on real servers are elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
from elastic_transport import NodeConfig

from models.errors import InvalidToken, NoSuchView, Transient, ViewBehind
from models.tokens import Point, Token
from streams.kafka.partitioner import partition_of
from streams.views import read_your_writes
from streams.views.asked_nodes import note_node
from streams.views.checkpoint import Checkpoint, IndexCheckpoints
from streams.views.read_your_writes import ReadYourWrites
from streams.views.reader import ViewReader

TOPIC = "users.commands.v1"
PARTITIONS = 2
CLUSTER = "cluster"
NODE, OTHER = (NodeConfig("http", name, 9200) for name in ("a", "b"))


@dataclass
class View:
    """Returns one reading after the other, the last one for ever, and logs what it was asked."""

    readings: list[IndexCheckpoints | Exception]
    log: list[str] = field(default_factory=list)
    nodes: list[NodeConfig] = field(default_factory=list)
    """Nodes that answer the refreshes and queries; afterwards `NODE` does."""

    async def checkpoints(self, partitions: Iterable[int]) -> IndexCheckpoints:
        assert list(partitions) == [0, 1]
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, Exception):
            raise reading
        self.log.append("read")
        return reading

    async def refresh(self) -> None:
        self.log.append("refresh")
        self._note()

    async def query(self) -> str:
        self.log.append("query")
        self._note()
        return "result"

    node = NODE

    def ask_another_node(self, than: NodeConfig) -> None:
        assert than == NODE
        self.log.append("another node")

    def _note(self) -> None:
        note_node(self.nodes.pop(0) if self.nodes else NODE)


def token(user: str, offset: int, sequence: int = 1, cluster: str = CLUSTER) -> Token:
    partition = partition_of(user.encode(), PARTITIONS)
    return Token(cluster, (Point(TOPIC, partition, offset, user, sequence),))


def at(
    command_offset: int, sequence: int = 1, name: str = "v1", cluster: str = CLUSTER
) -> IndexCheckpoints:
    """Return an index with this checkpoint in both partitions."""
    checkpoint = Checkpoint(command_offset + 1, command_offset, sequence, cluster)
    return IndexCheckpoints(name, {0: checkpoint, 1: checkpoint}, NODE)


def waiting_for(view: View) -> ReadYourWrites:
    return ReadYourWrites(cast(ViewReader, view), TOPIC, PARTITIONS)


NOTHING = IndexCheckpoints("v1", {0: Checkpoint(), 1: Checkpoint()}, NODE)


async def test_it_waits_until_the_command_is_in_the_view() -> None:
    view = View([NOTHING, at(4), at(5)])
    assert await waiting_for(view).once_projected(token("anna", 5), 10, view.query) == "result"
    assert view.log == ["read", "read", "read", "query", "read"]


async def test_of_a_command_with_several_events_all_have_to_be_in_the_view() -> None:
    view = View([at(5, sequence=2), at(5, sequence=3)])
    await waiting_for(view).once_projected(token("anna", 5, sequence=3), 10, view.query)
    assert view.log == ["read", "read", "query", "read"]


async def test_whatever_came_later_is_enough() -> None:
    view = View([at(6, sequence=1)])
    await waiting_for(view).once_projected(token("anna", 5, sequence=3), 10, view.query)
    assert view.log == ["read", "query", "read"]


async def test_every_partition_of_a_joined_token_has_to_be_there() -> None:
    far, near = Checkpoint(10, 9, 1, CLUSTER), Checkpoint(3, 2, 1, CLUSTER)
    behind = IndexCheckpoints("v1", {0: far, 1: near}, NODE)
    both = token("anna", 5) | token("carla", 5)
    assert [point.partition for point in both.points] == [0, 1]
    view = View([behind, at(5)])
    await waiting_for(view).once_projected(both, 10, view.query)
    assert view.log == ["read", "read", "query", "read"]


async def test_a_search_comes_after_a_refresh_that_comes_after_the_write() -> None:
    view = View([at(4), at(5)])
    await waiting_for(view).once_searchable(token("anna", 5), 10, view.query)
    assert view.log == ["read", "read", "refresh", "query", "read"]


async def test_what_one_refresh_showed_needs_no_other() -> None:
    view = View([at(5)])
    queries = waiting_for(view)
    await queries.once_searchable(token("anna", 5), 10, view.query)
    await queries.once_searchable(token("carla", 3), 10, view.query)
    assert view.log.count("refresh") == 1


async def test_the_refresh_of_another_index_shows_nothing() -> None:
    view = View([at(5), at(5), at(5, name="v2")])
    queries = waiting_for(view)
    await queries.once_searchable(token("anna", 5), 10, view.query)
    await queries.once_searchable(token("anna", 5), 10, view.query)
    assert view.log.count("refresh") == 2


async def test_the_query_runs_again_if_the_alias_has_moved() -> None:
    view = View([at(5), replace(NOTHING, name="v2"), at(5, name="v2")])
    assert await waiting_for(view).once_projected(token("anna", 5), 10, view.query) == "result"
    assert view.log == ["read", "query", "read", "read", "query", "read"]


async def test_the_query_runs_again_if_the_index_was_created_again() -> None:
    view = View([at(5), NOTHING, NOTHING, at(5)])
    assert await waiting_for(view).once_projected(token("anna", 5), 10, view.query) == "result"
    assert view.log == ["read", "query", "read", "read", "read", "query", "read"]


async def test_the_query_runs_again_if_another_node_has_answered_it() -> None:
    """That one may be cut off, and have only what it had when it was."""
    view = View([at(5)], nodes=[OTHER])
    assert await waiting_for(view).once_projected(token("anna", 5), 10, view.query) == "result"
    assert view.log == ["read", "query", "read", "read", "query", "read"]


async def test_the_query_runs_again_if_another_node_was_asked_in_the_end() -> None:
    view = View([at(5), replace(at(5), node=OTHER), at(5)])
    assert await waiting_for(view).once_projected(token("anna", 5), 10, view.query) == "result"
    assert view.log == ["read", "query", "read", "read", "query", "read"]


async def test_the_refresh_of_another_node_shows_nothing() -> None:
    view = View([at(5)], nodes=[OTHER])
    assert await waiting_for(view).once_searchable(token("anna", 5), 10, view.query) == "result"
    assert view.log == ["read", "refresh", "read", "refresh", "query", "read"]


async def test_another_node_is_asked_if_one_always_shows_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for a view that is behind and gets on: queries need the same node for all they ask."""
    monkeypatch.setattr(read_your_writes, "_FIRST_NODE_INTERVAL_S", 0.0)
    getting_on = View([at(1), at(2), at(3), at(4), at(5)])
    await waiting_for(getting_on).once_projected(token("anna", 5), 10, getting_on.query)
    assert getting_on.log == [*["read"] * 5, "query", "read"]

    frozen = View([at(4), at(4), replace(at(5), node=OTHER)], nodes=[OTHER])
    assert await waiting_for(frozen).once_projected(token("anna", 5), 10, frozen.query) == "result"
    assert frozen.log == ["read", "read", "another node", "read", "query", "read"]


async def test_while_no_node_shows_anything_new_the_nodes_change_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = View([*[at(4)] * 40, at(5)])

    def seconds() -> float:
        return float(view.log.count("read"))  # one for each reading

    clock = SimpleNamespace(monotonic=seconds, perf_counter=seconds)
    monkeypatch.setattr(read_your_writes, "time", clock)
    monkeypatch.setattr(read_your_writes, "_MIN_PAUSE_S", 0.0)
    monkeypatch.setattr(read_your_writes, "_MAX_PAUSE_S", 0.0)
    await waiting_for(view).once_projected(token("anna", 5), 1000, view.query)
    changes = [place for place, what in enumerate(view.log) if what == "another node"]
    assert [after - before for before, after in pairwise(changes)] == [4, 6, 10, 18]


async def test_an_outage_is_waited_for() -> None:
    view = View([Transient("away"), Transient("away"), at(5)])
    assert await waiting_for(view).once_projected(token("anna", 5), 10, view.query) == "result"


async def test_a_missing_view_is_not() -> None:
    view = View([NoSuchView("no index")])
    with pytest.raises(NoSuchView):
        await waiting_for(view).once_projected(token("anna", 5), 10, view.query)


@pytest.mark.parametrize(
    ("reading", "line"),
    [
        (at(2), "did not show it in 0.05 s: it is 3 positions behind in partition 1 of users.com"),
        (NOTHING, "did not show it in 0.05 s: it is 6 positions behind in partition 1"),
        (at(5, sequence=0), "did not show it in 0.05 s: it is 0 positions behind"),
        (Transient("Elasticsearch is away"), "could not be asked in 0.05 s: Elasticsearch is away"),
    ],
)
async def test_what_is_late_says_that_the_write_succeeded(
    reading: IndexCheckpoints | Exception, line: str
) -> None:
    view = View([reading])
    with pytest.raises(ViewBehind) as caught:
        await waiting_for(view).once_searchable(token("anna", 5), 0.05, view.query)
    assert str(caught.value).startswith(f"The write succeeded, but the view {line}")
    assert "\n" not in str(caught.value)
    assert "query" not in view.log


async def test_another_cluster_is_an_error_as_soon_as_the_view_has_anything() -> None:
    view = View([at(5)])
    with pytest.raises(InvalidToken, match="another Kafka cluster"):
        await waiting_for(view).once_projected(token("anna", 5, cluster="other"), 10, view.query)
    assert "query" not in view.log
