"""What a consumer group is doing: its members, the partitions that they own, and its offsets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.structs import TopicPartition
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_fixed

COORDINATOR_COMES = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
"""What Kafka says while a group's coordinator is created, elected, or reads what it has."""

_COORDINATOR_TIMEOUT_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True)
class GroupMembers:
    """Who is in a consumer group now."""

    members: int
    owned: frozenset[TopicPartition]
    """The partitions of its members; those of a group that is rebalancing are not known yet."""
    is_rebalancing: bool


async def describe_group(admin: AIOKafkaAdminClient, group: str) -> GroupMembers:
    """Return who is in a group; a group that never existed has no members.

    Raises:
        KafkaError: no broker answers, or this client may not ask.
    """

    async def describe() -> GroupMembers:
        [response] = await admin.describe_consumer_groups([group])
        [(error, _group, state, _type, _protocol, members, *_)] = response.groups
        # Since version 6 of the protocol an unknown group is an error; older ones are used.
        if error:
            raise for_code(error)(group)
        owned: set[TopicPartition] = set()
        for _member, _client, _host, _metadata, assignment in members:
            if assignment:
                owned |= set(ConsumerProtocolMemberAssignment.decode(assignment).partitions())
        is_rebalancing = state not in ("Stable", "Empty", "Dead")
        return GroupMembers(len(members), frozenset(owned), is_rebalancing)

    return await coordinated(describe)


async def committed_positions(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> Mapping[TopicPartition, int]:
    """Return what a group has committed: the offset of the next record of each partition.

    A partition of which it has committed nothing is left out.

    Raises:
        KafkaError: no broker answers, or this client may not ask.
    """

    async def fetch() -> Mapping[TopicPartition, int]:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
        # An error of the whole answer looks to aiokafka as if there were no partitions.
        if len(found) < len(partitions):
            raise GroupLoadInProgressError(group)
        return {tp: position.offset for tp, position in found.items() if position.offset >= 0}

    return await coordinated(fetch)


async def coordinated(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the coordinator of the group is there: on a new cluster asking makes it.

    Raises:
        KafkaError: it is not there within 10 s (one of `COORDINATOR_COMES`), or Kafka failed.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(COORDINATOR_COMES),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(_COORDINATOR_TIMEOUT_S),
        reraise=True,
    ):
        with attempt:
            found = await ask()
    return found
