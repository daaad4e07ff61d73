"""Elasticsearch, one node per process: the core server and its transport.

It listens on 127.0.0.1, unless `Listeners` name another host.

The launcher of the full distribution is in no package registry, so the node is started through its
public classes. It lacks most modules of the full distribution, such as the field type `wildcard`.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from deploy.embedded import elasticsearch_security
from deploy.embedded.ports import HOST
from deploy.embedded.secrets import ADMIN, Secrets
from deploy.embedded.shared_files import write_atomically
from models.errors import Fatal

_SETTINGS = "config/elasticsearch.json"


class Listeners(NamedTuple):
    """The ports of one node."""

    http: int
    transport: int = 0  # used by the nodes only; 0 is any free one, which is enough for one node
    host: str = HOST


def configure(
    nodes: Mapping[Path, Listeners],
    *,
    advertised: Mapping[Path, Listeners] | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
    secure: bool = False,
) -> None:
    """Write the configuration of a cluster; each node keeps its data below its home folder.

    Args:
        nodes: the ports that each node listens on, by home folder.
        advertised: the ports that others connect to, if these are not the same: those of proxies.
        changes: settings of Elasticsearch that each node has in place of those chosen here.
        secure: whether clients authenticate, over TLS.

    Raises:
        Fatal: Elasticsearch would keep its data in another folder.
    """
    advertised = advertised or nodes
    names = node_names(len(nodes))
    for name, (home, ports) in zip(names, nodes.items(), strict=True):
        if "," in str(home):
            raise Fatal(
                f"Elasticsearch takes a path with a comma for two: choose another than {home}"
            )
        settings = {
            "path.data": "data/elasticsearch",  # relative to the working directory, the home
            "path.logs": "logs",
            "path.repo": "snapshots",  # where snapshot repositories of the type `fs` may be
            "cluster.name": "cqrs-streams",
            "node.name": name,
            "network.host": ports.host,
            "http.port": ports.http,
            "http.publish_port": advertised[home].http,
            "transport.port": ports.transport,
            "transport.publish_port": advertised[home].transport or -1,  # the one it listens on
            # On a nearly full disk, all indices would become read-only.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **_discovery(names, list(advertised.values())),
            **(elasticsearch_security.settings() if secure else {}),
            **changes,
        }
        written = {key: str(value) for key, value in settings.items()}
        write_atomically(home / _SETTINGS, json.dumps(written, indent=1))


def node_names(nodes: int) -> list[str]:
    """Return the names of a cluster's nodes, in their order."""
    return [f"embedded-{number}" for number in range(1, nodes + 1)]


def _discovery(names: list[str], nodes: list[Listeners]) -> dict[str, str]:
    """Return the settings by which the nodes of a cluster find each other."""
    if len(nodes) == 1:
        return {"discovery.type": "single-node"}
    return {
        "discovery.seed_hosts": ",".join(f"{node.host}:{node.transport}" for node in nodes),
        "cluster.initial_master_nodes": ",".join(names),
    }


def start_server(home: Path, jars: Path) -> Callable[[], None]:
    """Start the node in this process's JVM, and return when it serves HTTP.

    Returns:
        A function that shuts the node down cleanly.
    """
    from jpype import JClass

    JClass("org.elasticsearch.common.logging.LogConfigurator").configureESLogging()
    settings = JClass("org.elasticsearch.common.settings.Settings").builder()
    settings.put("path.home", str(jars))
    modules = jars / "modules"
    written = json.loads((home / _SETTINGS).read_text())
    for name, value in written.items():
        settings.put(name, value)
    if "xpack.security.enabled" in written:
        settings.setSecureSettings(elasticsearch_security.secure_settings(home))
        modules = home / "tmp" / "elasticsearch" / "modules"
        elasticsearch_security.prepare_modules(modules, jars)
    config = JClass("java.nio.file.Path").of(str(home / "config"))
    environment = JClass("org.elasticsearch.env.Environment")(settings.build(), config)
    loader = JClass("org.elasticsearch.plugins.PluginsLoader")
    folder = JClass("java.nio.file.Path").of(str(modules))
    try:
        bundles = loader.loadModulesBundles(folder, False)
    except TypeError:  # up to Elasticsearch 9.0 it has one parameter
        bundles = loader.loadModulesBundles(folder)
    nothing = JClass("java.util.HashSet")(), JClass("java.util.HashMap")()
    plugins = loader.createPluginsLoader(bundles, *nothing, False)
    node = JClass("org.elasticsearch.node.Node")(environment, plugins)
    node.start()
    return lambda: node.close()


def is_healthy(port: int, secrets: Secrets | None = None, *, host: str = HOST) -> bool:
    """Check whether the node answers and all its indices can be searched."""
    connection: http.client.HTTPConnection  # which ignores configured proxies
    headers = {}
    if secrets is None:
        connection = http.client.HTTPConnection(host, port, timeout=5)
    else:
        context = ssl.create_default_context(cafile=secrets.ca_file)
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
        credentials = base64.b64encode(f"elastic:{secrets.password(ADMIN)}".encode()).decode()
        headers["Authorization"] = f"Basic {credentials}"
    try:
        connection.request("GET", "/_cluster/health", headers=headers)
        response = connection.getresponse()
        return response.status == http.HTTPStatus.OK and json.load(response)["status"] != "red"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
