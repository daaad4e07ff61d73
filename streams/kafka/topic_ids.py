"""Look up a topic's id (KIP-516): it changes when a topic is deleted and created again."""

from __future__ import annotations

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code

from streams.kafka.clients import new_consumer, stop
from streams.kafka.metadata import TopicMetadata, topic_metadata
from streams.settings import Settings


async def topic_id(settings: Settings, topic: str) -> str:
    """Return the topic's id, 32 hex digits.

    Raises:
        KafkaError: no broker answers, or it does not know the topic.
    """
    return (await look_up_topic(settings, topic)).id


async def look_up_topic(settings: Settings, topic: str) -> TopicMetadata:
    """Return what a broker knows of the topic. As `topic_id`."""
    consumer = new_consumer(settings)
    try:
        await consumer.start()
        return await _ask(consumer._client, consumer._client.get_random_node(), topic)
    finally:
        await stop(consumer)


async def ask_topic_id(client: AIOKafkaClient, node: int, topic: str) -> str:
    """Ask one broker for the topic's id, with a client that is started. As `topic_id`."""
    return (await _ask(client, node, topic)).id


async def _ask(client: AIOKafkaClient, node: int, topic: str) -> TopicMetadata:
    found = (await topic_metadata(client, [topic], node))[topic]
    if found.error:
        raise for_code(found.error)(topic)
    return found
