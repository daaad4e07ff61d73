"""A client of Elasticsearch that gives one answer to every bulk request."""

from __future__ import annotations

from typing import Any


class _Client:
    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer
        self.sent: list[bytes] = []

    async def bulk(self, *, operations: bytes, **_: Any) -> dict[str, Any]:
        self.sent.append(operations)
        return self._answer


def client_that_answers(answer: dict[str, Any]) -> Any:
    """Return a client whose bulk requests have this answer; they are in its `sent`."""
    return _Client(answer)
