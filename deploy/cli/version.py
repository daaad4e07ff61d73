"""What `cqrs --version` says: the program, and what it runs on."""

from __future__ import annotations

import platform
from importlib.metadata import version

from deploy.embedded.lockfile import ELASTICSEARCH_VERSION, KAFKA_VERSION
from deploy.embedded.preconditions import EXTRA, missing_packages

_PROGRAM = "cqrs-streams"
_LIBRARIES = ("aiokafka", "faust-streaming", "elasticsearch")


def version_lines() -> str:
    """Return the versions of the program, of Python, of the libraries and of the own servers."""
    servers = f"Kafka {KAFKA_VERSION}, Elasticsearch {ELASTICSEARCH_VERSION}"
    if missing_packages():
        servers = f"not installed ({EXTRA})"
    return "\n".join(
        [
            f"cqrs {version(_PROGRAM)}",
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}",
            ", ".join(f"{library} {version(library)}" for library in _LIBRARIES),
            f"embedded servers: {servers}",
        ]
    )
