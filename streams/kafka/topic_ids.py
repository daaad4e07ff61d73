"""Look up a topic's id (KIP-516): it changes when a topic is deleted and created again."""

from __future__ import annotations

from aiokafka.errors import for_code

from streams.kafka.clients import new_consumer, stop
from streams.kafka.metadata import topic_metadata
from streams.settings import Settings


async def topic_id(settings: Settings, topic: str) -> str:
    """Return the topic's id, 32 hex digits.

    Raises:
        KafkaError: no broker answers, or it does not know the topic.
    """
    consumer = new_consumer(settings)
    try:
        await consumer.start()
        found = (await topic_metadata(consumer._client, [topic]))[topic]
    finally:
        await stop(consumer)
    if found.error:
        raise for_code(found.error)(topic)
    return found.id
