"""Tokens without a signature, which Kafka accepts where it is told to, for tests."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

USER = "TEST_TOKEN_USER"
LIFETIME_S = "TEST_TOKEN_LIFETIME"
MADE = "TEST_TOKENS_MADE"
"""Name of a file with a byte for each token; a function that cannot write there fails."""


async def token() -> str:
    """Return a token for the user that the environment names, and note it."""
    _note()
    now = int(time.time())  # in the broker's milliseconds a part of one could be ahead
    claims = {"sub": os.environ[USER], "iat": now, "exp": now + float(os.environ[LIFETIME_S])}
    return f"{_encoded({'alg': 'none'})}.{_encoded(claims)}."


def _note() -> None:
    with Path(os.environ[MADE]).open("ab") as made:
        made.write(b".")


def _encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
