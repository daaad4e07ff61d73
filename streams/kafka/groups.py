"""What a consumer group is doing: its members, and the partitions that they own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import for_code
from aiokafka.structs import TopicPartition


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
    [response] = await admin.describe_consumer_groups([group])
    [(error, _group, state, _type, _protocol, members, *_)] = response.groups
    # Since version 6 of the protocol (Kafka 3.9) an unknown group is an error; older ones are used.
    if error:
        raise for_code(error)(group)
    owned: set[TopicPartition] = set()
    for _member, _client, _host, _metadata, assignment in members:
        if assignment:
            owned |= set(ConsumerProtocolMemberAssignment.decode(assignment).partitions())
    return GroupMembers(len(members), frozenset(owned), state not in ("Stable", "Empty", "Dead"))


async def committed_positions(
    admin: AIOKafkaAdminClient, group: str
) -> Mapping[TopicPartition, int]:
    """Return what a group has committed: the offset of the next record of each partition.

    Raises:
        KafkaError: no broker answers, or this client may not ask.
    """
    found = await admin.list_consumer_group_offsets(group)
    return {tp: position.offset for tp, position in found.items() if position.offset >= 0}
