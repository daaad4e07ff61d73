"""Where the events of a view are: the one place where commands learn of its topic, and check it."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import KafkaError

from models.errors import Transient
from streams.aggregate import TopicNames
from streams.kafka.clients import admin_client, cluster_id
from streams.kafka.groups import describe_group
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import check_topics, topic_specs
from streams.settings import Settings
from streams.views.projection import View
from streams.views.situation import EventLog


async def event_log(settings: Settings, view: View[Any]) -> EventLog:
    """Check the topics of a view's aggregate, and return which event topic is read.

    Raises:
        Fatal: Kafka does not answer, a topic is missing, or has another number of partitions than
            the settings say.
        Transient: Kafka failed.
    """
    names = TopicNames.of(settings, view.aggregate)
    await check_topics(settings, topic_specs(settings, names))
    try:
        return EventLog(
            await cluster_id(settings),
            await topic_id(settings, names.events),
            settings.partitions,
        )
    except KafkaError as error:
        raise Transient(
            f"Kafka did not say which topic {names.events} is: {type(error).__name__}"
        ) from error


async def has_workers(settings: Settings, view: View[Any], definition: str) -> bool:
    """Return whether a worker with this definition of a view runs now.

    Raises:
        Fatal: Kafka does not answer.
        KafkaError: It failed.
    """
    group = settings.namespace + view.group_of(definition)
    async with admin_client(settings) as admin:
        return (await describe_group(admin, group)).members > 0
