"""Who the brokers of a cluster are, what they understand, and how one is configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.kafka.clients import admin_client
from streams.kafka.metadata import api_versions
from streams.settings import Settings


@dataclass(frozen=True)
class Brokers:
    """The Kafka cluster."""

    cluster: str
    count: int
    versions: Mapping[int, tuple[int, int]]
    """Lowest and highest version of each request that a broker takes, by its key."""
    configs: Mapping[str, str] | None
    """A broker's configuration; None if these credentials may not see it."""


async def describe_brokers(settings: Settings) -> Brokers:
    """Return who the brokers are.

    Raises:
        Fatal: none answers, or takes this client.
        KafkaError: they failed.
    """
    async with admin_client(settings) as admin:
        cluster = await admin.describe_cluster()
        nodes = [int(broker["node_id"]) for broker in cluster["brokers"]]
        versions = await api_versions(admin._client, nodes[0])
        return Brokers(
            str(cluster["cluster_id"]), len(nodes), versions, await _configs_of(admin, nodes[0])
        )


async def _configs_of(admin: AIOKafkaAdminClient, node: int) -> Mapping[str, str] | None:
    resource = ConfigResource(ConfigResourceType.BROKER, str(node))
    found: dict[str, str] = {}
    for response in await admin.describe_configs([resource]):
        for code, _message, _type, _name, entries in response.resources:
            if code:
                return None
            found |= {entry[0]: entry[1] for entry in entries}
    return found
