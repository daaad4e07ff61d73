"""What aiokafka 0.14 cannot ask for: a topic's id, and what this client may do with it or a group.

For topics this is the metadata request in the first version that returns ids (KIP-516), of Kafka
2.8; it also returns the operations that are allowed (KIP-430). For groups it is aiokafka's request,
which reads the response in the format of an older version, without them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.protocol.admin import ApiVersionRequest, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

_UUID = Schema(("high", Int64), ("low", Int64))


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _UUID),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("topic_authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _UUID), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Sequence[str], *, with_rights: bool) -> None:
        self._topics = topics
        self._with_rights = with_rights

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        no_tags: dict[int, bytes] = {}
        topics = [((0, 0), topic, no_tags) for topic in self._topics]
        return request_struct_class(topics, False, False, self._with_rights, {})


@dataclass(frozen=True)
class TopicMetadata:
    """What a broker knows of one topic."""

    error: int
    """Code of Kafka; 0 if it is there."""
    id: str
    """32 hex digits; it changes when a topic is deleted and created again."""
    allowed: int
    """Operations that this client may do: a bit for each, at the operation's code."""
    partitions: int
    """How many it has."""


class _GroupsRequestStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _GroupsRequest(Request[_GroupsRequestStruct]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupsRequestStruct]) -> _GroupsRequestStruct:
        return request_struct_class([self._group], True)


async def api_versions(client: AIOKafkaClient, node: int) -> Mapping[int, tuple[int, int]]:
    """Return the lowest and the highest version of each request that a broker takes, by its key.

    Raises:
        KafkaError: it does not answer.
    """
    response = await client.send(node, ApiVersionRequest())
    return {key: (lowest, highest) for key, lowest, highest in response.api_versions}


async def group_rights(client: AIOKafkaClient, group: str) -> tuple[int, int]:
    """Return the error's code and the operations that this client may do, as in `TopicMetadata`.

    Raises:
        GroupAuthorizationFailedError: it may do nothing.
        KafkaError: no broker answers.
    """
    coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
    response = await client.send(coordinator, _GroupsRequest(group))
    [(error, *_, allowed)] = response.groups
    return error, allowed


async def topic_metadata(
    client: AIOKafkaClient, topics: Collection[str], node: int, *, with_rights: bool = False
) -> Mapping[str, TopicMetadata]:
    """Return the metadata of these topics, by name, as one broker knows them.

    The broker only looks up what is allowed `with_rights`.

    Raises:
        KafkaError: no broker answers.
    """
    response = await client.send(node, _MetadataRequest(list(topics), with_rights=with_rights))
    found = {}
    for error, name, (high, low), _internal, partitions, allowed, _tags in response.topics:
        id_ = high.to_bytes(8, "big", signed=True) + low.to_bytes(8, "big", signed=True)
        found[name] = TopicMetadata(error, id_.hex(), allowed, len(partitions))
    return found
