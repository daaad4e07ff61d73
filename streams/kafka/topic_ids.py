"""Look up a topic's id (KIP-516): it changes when a topic is deleted and created again.

aiokafka 0.14 cannot ask for it. This is the metadata request in the first version that returns ids,
of Kafka 2.8.
"""

from __future__ import annotations

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from streams.kafka.clients import new_consumer, stop
from streams.settings import Settings

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

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        return request_struct_class([((0, 0), self._topic, {})], False, False, False, {})


async def topic_id(settings: Settings, topic: str) -> str:
    """Return the topic's id, 32 hex digits.

    Raises:
        KafkaError: no broker answers, or it does not know the topic.
    """
    consumer = new_consumer(settings)
    try:
        await consumer.start()
        return await ask_topic_id(consumer._client, consumer._client.get_random_node(), topic)
    finally:
        await stop(consumer)


async def ask_topic_id(client: AIOKafkaClient, node: int, topic: str) -> str:
    """Ask one broker for the topic's id, with a client that is started. As `topic_id`."""
    response = await client.send(node, _MetadataRequest(topic))
    [(error, _name, (high, low), *_)] = response.topics
    if error:
        raise for_code(error)(topic)
    return str((high.to_bytes(8, "big", signed=True) + low.to_bytes(8, "big", signed=True)).hex())
