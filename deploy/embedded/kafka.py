"""Kafka as one node: broker and controller in one process (KRaft), on 127.0.0.1 only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.embedded.files import write_atomically
from deploy.embedded.ports import HOST

_PROPERTIES = "config/kafka.properties"
_DATA = "data/kafka"
_INTERNAL_PARTITIONS = 8  # the default of 50 costs seconds at every start


def configure(home: Path, *, port: int, controller_port: int) -> None:
    """Write the configuration of a node that keeps its data below `home`."""
    broker, controller = f"PLAINTEXT://{HOST}:{port}", f"CONTROLLER://{HOST}:{controller_port}"
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{broker},{controller}",
        "advertised.listeners": f"{broker},{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": _DATA,  # relative to the process's folder, which is `home`
        "auto.create.topics.enable": "false",  # a topic with the wrong partitions is a wrong topic
        "delete.topic.enable": "true",
        # After kill -9 a broker is let in again when its former session has ended.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "offsets.topic.num.partitions": _INTERNAL_PARTITIONS,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": _INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "min.insync.replicas": 1,
        "default.replication.factor": 1,
        # A start after kill -9 reads the logs again: do it with every core.
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.dedupe.buffer.size": 16 << 20,  # bytes of the small heap
    }
    text = "".join(f"{name}={value}\n" for name, value in settings.items())
    write_atomically(home / _PROPERTIES, text)


def start_server(home: Path, _jars: Path) -> Callable[[], None]:
    """Start the node in this process's JVM; returns when clients are served.

    Returns:
        What closes it in good order.
    """
    from jpype import JClass

    properties = home / _PROPERTIES
    if not (home / _DATA / "meta.properties").exists():
        _format(properties)
    java_properties = JClass("org.apache.kafka.common.utils.Utils").loadProps(str(properties))
    config = JClass("kafka.server.KafkaConfig").fromProps(java_properties, False)
    time = JClass("org.apache.kafka.common.utils.Time").SYSTEM
    server = JClass("kafka.server.KafkaRaftServer")(config, time)
    server.startup()

    def close() -> None:
        server.shutdown()
        server.awaitShutdown()

    return close


def _format(properties: Path) -> None:
    from jpype import JClass

    output = JClass("java.io.ByteArrayOutputStream")()
    # Kafka's own: it makes none that starts with a dash, which would be taken for an option
    cluster = str(JClass("org.apache.kafka.common.Uuid").randomUuid())
    status = JClass("kafka.tools.StorageTool").execute(
        ["format", "--standalone", "-t", cluster, "-c", str(properties)],
        JClass("java.io.PrintStream")(output),
    )
    if status != 0:
        raise RuntimeError(f"formatting Kafka's storage failed: {output.toString()}")
