"""The packages of the extra `bench`, which only `cqrs bench` needs: check that they are here."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from models.errors import Fatal

QUIXSTREAMS = ("quixstreams",) if sys.version_info >= (3, 11) else ()  # supports 3.11 and later


def need(*modules: str) -> None:
    """Check that these modules are installed.

    Raises:
        Fatal: one is missing; says what to install. The benchmarks are in a checkout only.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise Fatal(
            f"{' and '.join(missing)} not found: install the extra `bench` in the checkout, "
            "pip install -e '.[bench,embedded]'"
        )
