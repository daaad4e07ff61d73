"""Finds the id of an aggregate in any value, in whatever way a producer has spelt it."""

from __future__ import annotations

import re
from typing import Any

import orjson

# A character that JSON has escaped.
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")


def mentions(value: bytes | None, aggregate_id: str) -> bool:
    """Return whether the id is a value or a name in this JSON.

    What is no JSON is searched for the id as a part of its text, which may find too much.
    """
    raw = aggregate_id.encode()
    if value is None or not (raw in value or b"\\" in value or b"\0" in value):
        return False  # neither as it is, nor escaped, nor in UTF-16
    if orjson.dumps(aggregate_id) in value:  # also in a field that is there twice
        return True
    try:
        return _contains(orjson.loads(value), aggregate_id)
    except orjson.JSONDecodeError:
        texts = [value.decode(coding, "replace") for coding in ("utf-8", "utf-16-le", "utf-16-be")]
        return any(aggregate_id in _ESCAPED.sub(_unescape, text) for text in texts)


def _contains(data: Any, text: str) -> bool:
    unseen = [data]
    while unseen:
        one = unseen.pop()
        if isinstance(one, dict):
            unseen += one.keys()
            unseen += one.values()
        elif isinstance(one, list):
            unseen += one
        elif one == text:
            return True
    return False


def _unescape(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 16)) if escaped[1] else escaped[2]
