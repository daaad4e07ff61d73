"""Kafka: broker and controller in one process per node (KRaft), on 127.0.0.1 only."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from deploy.embedded.ports import HOST
from deploy.embedded.shared_files import write_atomically

_PROPERTIES = "config/kafka.properties"
_FORMAT = "config/kafka-format.json"  # the arguments that a new node's storage is formatted with
_DATA = "data/kafka"
_INTERNAL_PARTITIONS = 8  # the default of 50 costs seconds at every start


class Listeners(NamedTuple):
    """The ports of one node."""

    broker: int
    controller: int  # for the nodes alone


def configure(nodes: Mapping[Path, Listeners]) -> None:
    """Write the configuration of a cluster; each node keeps its data below its home.

    With three nodes or more, one may be away: every record is on all of them, and is acknowledged
    when all but one have it.
    """
    controllers = [f"{HOST}:{ports.controller}" for ports in nodes.values()]
    voters = [f"{id_}@{voter}:{_new_id()}" for id_, voter in enumerate(controllers, 1)]
    # `=` because an id may start with a dash, which would be taken for an option by itself
    new = [f"--cluster-id={_new_id()}", f"--initial-controllers={','.join(voters)}"]
    for id_, (home, ports) in enumerate(nodes.items(), 1):
        settings = {"node.id": id_, "controller.quorum.bootstrap.servers": ",".join(controllers)}
        settings |= _settings(ports, replicas=len(nodes), in_sync=max(1, len(nodes) - 1))
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        write_atomically(home / _PROPERTIES, text)
        write_atomically(home / _FORMAT, json.dumps(new))


def start_server(home: Path, _jars: Path) -> Callable[[], None]:
    """Start the node in this process's JVM; returns when clients are served.

    Returns:
        What closes it in good order.
    """
    from jpype import JClass

    properties = home / _PROPERTIES
    if not (home / _DATA / "meta.properties").exists():
        _format(home)
    java_properties = JClass("org.apache.kafka.common.utils.Utils").loadProps(str(properties))
    config = JClass("kafka.server.KafkaConfig").fromProps(java_properties, False)
    time = JClass("org.apache.kafka.common.utils.Time").SYSTEM
    server = JClass("kafka.server.KafkaRaftServer")(config, time)
    server.startup()

    def close() -> None:
        server.shutdown()
        server.awaitShutdown()

    return close


def active_controller(home: Path) -> tuple[int, int]:
    """The epoch and the id of the active controller, as the node in `home` has seen it last.

    The id is -1 while an election is under way.
    """
    try:
        state = json.loads((home / _DATA / "__cluster_metadata-0" / "quorum-state").read_text())
    except FileNotFoundError:
        return -1, -1  # it has not voted yet
    return state["leaderEpoch"], state["leaderId"]


def _settings(ports: Listeners, *, replicas: int, in_sync: int) -> dict[str, object]:
    """The settings of a node, apart from what names the cluster's nodes."""
    listeners = f"PLAINTEXT://{HOST}:{ports.broker},CONTROLLER://{HOST}:{ports.controller}"
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": _DATA,  # relative to the process's folder, which is its home
        "auto.create.topics.enable": "false",  # a topic with the wrong partitions is a wrong topic
        "delete.topic.enable": "true",
        # After kill -9 a broker is let in again when its former session has ended.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "offsets.topic.num.partitions": _INTERNAL_PARTITIONS,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": _INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "min.insync.replicas": in_sync,
        "default.replication.factor": replicas,
        # A start after kill -9 reads the logs again: do it with every core.
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.dedupe.buffer.size": 16 << 20,  # bytes of the small heap
    }


def _new_id() -> str:
    """An id as Kafka writes it: 16 bytes in 22 characters."""
    return base64.urlsafe_b64encode(uuid4().bytes).rstrip(b"=").decode()


def _format(home: Path) -> None:
    from jpype import JClass

    output = JClass("java.io.ByteArrayOutputStream")()
    new = json.loads((home / _FORMAT).read_text())
    status = JClass("kafka.tools.StorageTool").execute(
        ["format", *new, "-c", str(home / _PROPERTIES)],
        JClass("java.io.PrintStream")(output),
    )
    if status != 0:
        raise RuntimeError(f"formatting Kafka's storage failed: {output.toString()}")
