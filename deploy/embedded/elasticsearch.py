"""Elasticsearch as one node: the core server and its HTTP transport, on 127.0.0.1 only.

The distribution's launcher is in no package registry, so the node is started through its public
classes. What such a node lacks against the full distribution is listed in the README.
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
        Fatal: the node would keep its data elsewhere.
    """
    if "," in str(home):
        raise Fatal(f"Elasticsearch takes a path with a comma for two: choose another than {home}")
    settings = {
        "path.data": "data/elasticsearch",  # relative to the process's folder, which is `home`
        "path.logs": "logs",
        "path.repo": "snapshots",  # where a repository of the type `fs` may be
        "cluster.name": "cqrs-streams",
        "node.name": "embedded",
        "discovery.type": "single-node",
        "network.host": HOST,
        "http.port": str(port),
        "transport.port": "0",  # nothing but the node itself uses it
        # On a developer's nearly full disk indices would turn read-only at once.
        "cluster.routing.allocation.disk.threshold_enabled": "false",
    }
    write_atomically(home / _SETTINGS, json.dumps(settings, indent=1))


def start_server(home: Path, jars: Path) -> Callable[[], None]:
    """Start the node in this process's JVM; returns when HTTP is served.

    Returns:
        What closes it in good order.
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
    """Whether the node answers and every index it has can be searched."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)  # whatever proxy is configured
    try:
        connection.request("GET", "/_cluster/health")
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK and json.load(answer)["status"] != "red"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
