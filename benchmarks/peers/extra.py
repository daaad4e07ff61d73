"""The packages of the extra `bench`, which only `cqrs bench` needs."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from models.errors import Fatal

QUIXSTREAMS = ("quixstreams",) if sys.version_info >= (3, 11) else ()  # what it supports


def need(*modules: str) -> None:
    """Raises Fatal, and says what to install, if one of these modules is not there."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise Fatal(
            f"{' and '.join(missing)} not found: install the extra, "
            "pip install 'cqrs-streams[bench]'"
        )
