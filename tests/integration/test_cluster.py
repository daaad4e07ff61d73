"""The embedded cluster: any one node may be killed, and nothing of it stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.embedded import temporary_homes as temporary
from deploy.embedded.cluster import EmbeddedCluster
from tests.integration.server_processes import eventually, python, servers_of

NODES = {1, 2, 3}


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    """A cluster for the test; nothing of it may be there after its block."""
    with EmbeddedCluster.temporary() as running:
        homes = [node.log.parent.parent for node in running.nodes]
        yield running
        assert [len(servers_of(home)) for home in homes] == [1, 1, 1]
    assert [servers_of(home) for home in homes] == [[], [], []]
    assert not any(home.exists() for home in homes)


def create_topic(cluster: EmbeddedCluster) -> str:
    """A new topic of three partitions, as replicated as the cluster makes it."""
    topic = f"replicated-{uuid4()}"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 3)])[topic].result(30)
    return topic


def in_sync(cluster: EmbeddedCluster) -> list[set[int]]:
    """The replicas in sync of every partition that there is, internal ones too."""
    found = AdminClient({"bootstrap.servers": cluster.bootstrap_servers}).list_topics(timeout=30)
    return [
        set(partition.isrs)
        for topic in found.topics.values()
        for partition in topic.partitions.values()
    ]


def produce(cluster: EmbeddedCluster, topic: str, value: bytes) -> None:
    """One record to every partition, acknowledged by all replicas in sync; in a transaction."""
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": str(uuid4())}
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for partition in range(3):
        producer.produce(topic, value, partition=partition)
    producer.commit_transaction(60)


def values(cluster: EmbeddedCluster, topic: str, wanted: int) -> list[list[bytes]]:
    """The first records of every partition, so many of each."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": str(uuid4())})
    found: list[list[bytes]] = [[], [], []]
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(3)])
        while min(map(len, found)) < wanted:
            message = consumer.poll(60)
            assert message is not None
            assert message.error() is None
            found[message.partition() or 0].append(message.value() or b"")
    finally:
        consumer.close()
    return found


def test_any_one_node_may_be_killed(cluster: EmbeddedCluster) -> None:
    """The controller first, then the others; there is work while each of them is away."""
    topic = create_topic(cluster)
    produce(cluster, topic, b"0")
    assert cluster.controller is not None
    victims = [cluster.controller, *(set(cluster.nodes) - {cluster.controller})]
    for count, victim in enumerate(victims, 1):
        address, pid = cluster.bootstrap_servers, victim.pid
        victim.kill()
        assert cluster.controller is not victim
        produce(cluster, topic, b"%d" % count)
        eventually(lambda: cluster.controller)
        eventually(lambda: all(len(replicas) == 2 for replicas in in_sync(cluster)))
        victim.start()
        assert victim.pid not in (None, pid)
        assert cluster.bootstrap_servers == address
        eventually(lambda: all(replicas == NODES for replicas in in_sync(cluster)))
    assert values(cluster, topic, 4) == [[b"0", b"1", b"2", b"3"]] * 3


OWNER = """
import sys
from deploy.embedded.cluster import EmbeddedCluster
with EmbeddedCluster.temporary() as cluster:
    print(*(node.log.parent.parent for node in cluster.nodes), sep="\\n", flush=True)
    sys.stdin.read()
"""


def test_a_cluster_ends_with_its_owner_by_kill_9() -> None:
    owner = python(OWNER)
    assert owner.stdout is not None
    homes = [Path(owner.stdout.readline().decode().strip()) for _ in range(3)]
    servers = [server for home in homes for server in servers_of(home)]
    assert len(servers) == 3
    owner.kill()
    owner.communicate()
    eventually(lambda: not any(servers_of(home) for home in homes), within=10)
    with temporary.home():
        assert not any(home.exists() for home in homes)
