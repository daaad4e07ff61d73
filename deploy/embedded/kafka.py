"""Kafka: broker and controller in one process per node (KRaft).

It listens on 127.0.0.1, unless `Listeners` name another host.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from uuid import uuid4

from deploy.embedded.ports import HOST
from deploy.embedded.secrets import ADMIN, PRINCIPALS, SERVER, Secrets
from deploy.embedded.shared_files import write_atomically

_PROPERTIES = "config/kafka.properties"
_FORMAT = "config/kafka-format.json"  # arguments for formatting the storage of a new node
_DATA = "data/kafka"
_INTERNAL_PARTITIONS = 8  # the default, 50, costs seconds at every start


class Listeners(NamedTuple):
    """The ports of one node."""

    broker: int
    controller: int  # used by the nodes only
    certificates: int = 0  # of a secured node: for clients that show a certificate, if not 0
    host: str = HOST


def configure(
    nodes: Mapping[Path, Listeners],
    *,
    advertised: Mapping[Path, Listeners] | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
    secrets: Secrets | None = None,
) -> None:
    """Write the configuration of a cluster; each node keeps its data below its home folder.

    With three nodes or more, one may be down: every record is replicated to all nodes, and is
    acknowledged only when at least all but one have it.

    Args:
        nodes: the ports that each node listens on, by home folder.
        advertised: the ports that others connect to, if these are not the same: those of proxies.
        changes: settings of Kafka that each node has in place of those chosen here.
        secrets: if given, clients authenticate, over TLS, and have the rights that ACLs give them.
    """
    advertised = advertised or nodes
    controllers = [f"{ports.host}:{ports.controller}" for ports in advertised.values()]
    voters = [f"{id_}@{voter}:{_new_id()}" for id_, voter in enumerate(controllers, 1)]
    # with `=`: an id may start with a dash and would be taken for another option
    new = [f"--cluster-id={_new_id()}", f"--initial-controllers={','.join(voters)}"]
    for id_, (home, ports) in enumerate(nodes.items(), 1):
        settings = {"node.id": id_, "controller.quorum.bootstrap.servers": ",".join(controllers)}
        settings |= _settings(replicas=len(nodes), in_sync=max(1, len(nodes) - 1))
        settings |= _unsecured() if secrets is None else _secured(secrets)
        clients = "PLAINTEXT" if secrets is None else "SASL_SSL"
        settings["listeners"] = _addresses(clients, ports)
        settings["advertised.listeners"] = _addresses(clients, advertised[home])
        settings |= changes
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        write_atomically(home / _PROPERTIES, text, mode=0o600)
        users = _users(secrets) if secrets is not None else []
        write_atomically(home / _FORMAT, json.dumps([*new, *users]), mode=0o600)


def start_server(home: Path, _jars: Path) -> Callable[[], None]:
    """Start the node in this process's JVM, and return when it serves clients.

    Returns:
        A function that shuts the node down cleanly.
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
    """Return epoch and node id of the active controller, as last seen by the node in `home`.

    The id is -1 during an election.
    """
    try:
        state = json.loads((home / _DATA / "__cluster_metadata-0" / "quorum-state").read_text())
    except FileNotFoundError:
        return -1, -1  # it has not voted yet
    return state["leaderEpoch"], state["leaderId"]


def _settings(*, replicas: int, in_sync: int) -> dict[str, object]:
    """Return the settings that all nodes have."""
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": _DATA,  # relative to the working directory, which is the home
        "auto.create.topics.enable": "false",  # it would have the wrong number of partitions
        "delete.topic.enable": "true",
        # After kill -9 a broker can only register again when its former session has ended.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
        # A record that says nothing, written twice a second by default: a fifth of the CPU that a
        # broker without clients takes.
        "metadata.max.idle.interval.ms": 5000,
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
        # A start after kill -9 reads the logs again: do that with two cores.
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.dedupe.buffer.size": 16 << 20,  # bytes of the small heap
    }


def _unsecured() -> dict[str, object]:
    """Return the settings of nodes that everybody may use."""
    return {"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"}


def _secured(secrets: Secrets) -> dict[str, object]:
    """Return the settings of nodes to which clients, and nodes, show who they are."""
    security = "org.apache.kafka.common.security"
    admin = f'username="{ADMIN}" password="{secrets.password(ADMIN)}"'
    plain = " ".join(f'user_{name}="{secrets.password(name)}"' for name in PRINCIPALS)
    return {
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            f"{security}.scram.ScramLoginModule required {admin};"
        ),
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f"{security}.plain.PlainLoginModule required {plain};"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": secrets.server_file,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": secrets.ca_file,
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": r"RULE:^CN=([^,]+).*$/$1/",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN};User:{SERVER}",
    }


def _users(secrets: Secrets) -> list[str]:
    """Return the options that create the users when the storage is formatted."""
    return [
        f"--add-scram=SCRAM-SHA-512=[name={name},password={secrets.password(name)}]"
        for name in PRINCIPALS
    ]


def _addresses(clients: str, ports: Listeners) -> str:
    """Return what a node listens on; `clients` is the protocol of its port for clients."""
    listeners = {clients: ports.broker, "SSL": ports.certificates, "CONTROLLER": ports.controller}
    return ",".join(f"{name}://{ports.host}:{port}" for name, port in listeners.items() if port)


def _new_id() -> str:
    """Return a new id in Kafka's form: 16 random bytes in 22 characters of base64."""
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
