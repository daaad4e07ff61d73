"""Elasticsearch as a single node: the core server and its HTTP transport, on 127.0.0.1 only.

The launcher of the full distribution is in no package registry, so the node is started through its
public classes. It lacks most modules of the full distribution, such as the field type `wildcard`.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path

from deploy.embedded.ports import HOST
from deploy.embedded.shared_files import write_atomically
from models.errors import Fatal

_SETTINGS = "config/elasticsearch.json"


def configure(home: Path, *, port: int) -> None:
    """Write the configuration of a node that keeps its data below `home`.

    Raises:
        Fatal: Elasticsearch would keep its data in another folder.
    """
    if "," in str(home):
        raise Fatal(f"Elasticsearch takes a path with a comma for two: choose another than {home}")
    settings = {
        "path.data": "data/elasticsearch",  # relative to the working directory, which is `home`
        "path.logs": "logs",
        "path.repo": "snapshots",  # where snapshot repositories of the type `fs` may be
        "cluster.name": "cqrs-streams",
        "node.name": "embedded",
        "discovery.type": "single-node",
        "network.host": HOST,
        "http.port": str(port),
        "transport.port": "0",  # nothing but the node itself uses it
        # On a nearly full disk, all indices would become read-only.
        "cluster.routing.allocation.disk.threshold_enabled": "false",
    }
    write_atomically(home / _SETTINGS, json.dumps(settings, indent=1))


def start_server(home: Path, jars: Path) -> Callable[[], None]:
    """Start the node in this process's JVM, and return when it serves HTTP.

    Returns:
        A function that shuts the node down cleanly.
    """
    from jpype import JClass

    JClass("org.elasticsearch.common.logging.LogConfigurator").configureESLogging()
    settings = JClass("org.elasticsearch.common.settings.Settings").builder()
    settings.put("path.home", str(jars))
    for name, value in json.loads((home / _SETTINGS).read_text()).items():
        settings.put(name, value)
    config = JClass("java.nio.file.Path").of(str(home / "config"))
    environment = JClass("org.elasticsearch.env.Environment")(settings.build(), config)
    loader = JClass("org.elasticsearch.plugins.PluginsLoader")
    modules = loader.loadModulesBundles(environment.modulesDir(), False)
    nothing = JClass("java.util.HashSet")(), JClass("java.util.HashMap")()
    plugins = loader.createPluginsLoader(modules, *nothing, False)
    node = JClass("org.elasticsearch.node.Node")(environment, plugins)
    node.start()
    return lambda: node.close()


def is_healthy(port: int) -> bool:
    """Check whether the node answers and all its indices can be searched."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)  # ignores configured proxies
    try:
        connection.request("GET", "/_cluster/health")
        response = connection.getresponse()
        return response.status == http.HTTPStatus.OK and json.load(response)["status"] != "red"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
