"""What Kafka says of a consumer group, also while its coordinator is not there yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from streams.kafka import groups
from streams.kafka.groups import GroupMembers, committed_positions, describe_group

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Admin:
    """A client that gives these answers, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaError):
            raise answer
        return answer

    async def describe_consumer_groups(self, _groups: list[str]) -> Any:
        error, state, members = self._next()
        answer = (error, "g", state, "consumer", "range", members, 0)
        return [SimpleNamespace(groups=[answer])]

    async def list_consumer_group_offsets(
        self, _group: str, *, partitions: list[TopicPartition]
    ) -> Any:
        return self._next()


def client(*answers: Any) -> Any:
    return Admin(*answers)


MEMBERS = [("m1", "c", "h", b"", b""), ("m2", "c", "h", b"", b"")]


@pytest.mark.parametrize(
    "first",
    [
        GroupCoordinatorNotAvailableError(),
        (GroupLoadInProgressError.errno, "", []),
        (NotCoordinatorForGroupError.errno, "", []),
    ],
)
async def test_the_coordinator_of_a_group_is_waited_for(first: Any) -> None:
    admin = client(first, (0, "Stable", MEMBERS))
    assert await describe_group(admin, "g") == GroupMembers(2, frozenset(), False)
    assert not admin.answers


async def test_one_that_does_not_come_is_an_error_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "_COORDINATOR_TIMEOUT_S", 0.0)
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await describe_group(client(GroupCoordinatorNotAvailableError()), "g")


@pytest.mark.parametrize(
    ("state", "is_rebalancing"),
    [("Stable", False), ("Empty", False), ("Dead", False), ("PreparingRebalance", True)],
)
async def test_a_group_that_shares_out_its_partitions(state: str, is_rebalancing: bool) -> None:
    found = await describe_group(client((0, state, [])), "g")
    assert found == GroupMembers(0, frozenset(), is_rebalancing)


async def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        await describe_group(client((GroupAuthorizationFailedError.errno, "", [])), "g")


async def test_positions_of_partitions_that_were_committed() -> None:
    answer = {A: OffsetAndMetadata(7, ""), B: OffsetAndMetadata(-1, "")}
    assert await committed_positions(client(answer), "g", [A, B]) == {A: 7}


async def test_an_answer_without_the_partitions_is_none() -> None:
    """aiokafka drops the error of the whole answer: everything would seem to be undecided."""
    answer = {A: OffsetAndMetadata(7, "")}
    admin = client(GroupCoordinatorNotAvailableError(), {}, answer)
    assert await committed_positions(admin, "g", [A]) == {A: 7}
    assert not admin.answers
