"""Kafka as it comes creates a topic when a client asks about it: no client here lets it do that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import NewTopic

from deploy.embedded.cluster import EmbeddedCluster
from deploy.ephemeral import WorkerProcess
from deploy.waiting import wait_until
from streams.aggregate import TopicNames
from streams.kafka.clients import admin_client, new_consumer, new_producer, started
from streams.kafka.topics import topic_specs
from streams.settings import Settings
from tests.harness.command_line import cqrs


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedCluster]:
    """A broker with Kafka's default for `auto.create.topics.enable`."""
    changes = {"auto.create.topics.enable": "true"}
    with EmbeddedCluster.temporary(nodes=1, changes=changes) as running:
        yield running


def settings_for(broker: EmbeddedCluster, namespace: str) -> Settings:
    return Settings(bootstrap_servers=broker.bootstrap_servers, namespace=namespace, partitions=3)


async def topics_of(settings: Settings) -> list[str]:
    async with admin_client(settings) as admin:
        return [name for name in await admin.list_topics() if name.startswith(settings.namespace)]


async def test_topics_are_created_as_they_have_to_be(broker: EmbeddedCluster) -> None:
    settings = settings_for(broker, "created-")
    done = cqrs(settings, "topics", "create")
    assert done.returncode == 0, done.stderr
    specs = topic_specs(settings, TopicNames.of(settings, "users"))
    assert sorted(await topics_of(settings)) == sorted(spec.name for spec in specs)
    assert cqrs(settings, "topics", "create").returncode == 0


async def test_a_worker_and_a_client_without_topics_create_none(
    broker: EmbeddedCluster, tmp_path: Path
) -> None:
    settings = settings_for(broker, "missing-")
    with WorkerProcess("commands", settings, tmp_path) as worker:
        assert worker.wait() == 1
        assert "error: missing topics:" in worker.log_text
    sent = cqrs(settings, "send", "--from", "-", given=b"{}\n")
    assert "missing topics:" in sent.stderr
    assert await topics_of(settings) == []


async def test_a_producer_and_a_consumer_create_no_topic(broker: EmbeddedCluster) -> None:
    """A topic that is deleted while a worker runs does not come back as the broker makes it."""
    settings = settings_for(broker, "deleted-")
    topic = "deleted-users.events.v1"
    async with (
        started(new_producer(settings), settings) as producer,
        started(new_consumer(settings), settings) as consumer,
    ):
        for client in (producer.client, consumer._client):
            client.add_topic(topic)
            await client.force_metadata_update()
    async with admin_client(settings) as admin:  # a broker creates topics one after the other
        await admin.create_topics([NewTopic("deleted-last", 1, 1)])

    async def is_known() -> bool:
        return "deleted-last" in await topics_of(settings)

    await wait_until(is_known)
    assert await topics_of(settings) == ["deleted-last"]
