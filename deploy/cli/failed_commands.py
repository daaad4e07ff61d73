"""Failed commands as `cqrs dead` takes and shows them: which ones are meant, and how they look."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streams.commands.failed import DeadCommand, FailedCommands, ParkedAggregate
from streams.commands.send_again import SENT_BY_DEFAULT, can_be_sent, newest
from streams.state.parked import Content


@dataclass(frozen=True)
class Filter:
    """Which of the failed commands are meant; an empty one means all."""

    users: tuple[str, ...]
    codes: tuple[str, ...]
    since: datetime | None

    def takes_parked(self, one: ParkedAggregate) -> bool:
        """Return whether it takes an aggregate; its failed command counts, not those behind it."""
        return self._takes(one.aggregate_id, one.parked.failure.code, one.parked.first.timestamp)

    def takes_dead(self, one: DeadCommand) -> bool:
        """Return whether it takes a dead letter that was not sent again."""
        user = (one.key or b"").decode(errors="replace")
        return not one.sent_again and self._takes(user, one.code, one.timestamp)

    def takes_to_send(self, one: DeadCommand) -> bool:
        """Return whether it takes a dead letter to be sent again."""
        return self.takes_dead(one) and (bool(self.codes) or one.code in SENT_BY_DEFAULT)

    def of(self, found: FailedCommands) -> FailedCommands:
        """Return what it takes."""
        return FailedCommands(
            [one for one in found.parked if self.takes_parked(one)],
            newest([one for one in found.dead if self.takes_dead(one)]),
        )

    def _takes(self, user: str, code: str, timestamp: int) -> bool:
        return (
            (not self.users or user in self.users)
            and (not self.codes or code in self.codes)
            and (self.since is None or timestamp >= self.since.timestamp() * 1000)
        )


def items(found: FailedCommands, *, with_contents: bool) -> list[dict[str, Any]]:
    """Return JSON-ready objects: one per user with parked commands, one per dead letter."""
    parked = [
        {
            "kind": "parked",
            "user": one.aggregate_id,
            "partition": one.partition,
            "code": one.parked.failure.code,
            "reason": one.parked.failure.reason,
            "attempts": one.parked.failure.attempts,
            "since": time_of(one.parked.first.timestamp),
            "commands": [
                {"offset": waiting.offset, "time": time_of(waiting.timestamp)}
                | (_contents(content) if with_contents else {})
                for waiting, content in zip(one.parked.commands, one.contents, strict=True)
            ],
        }
        for one in found.parked
    ]
    letters = [
        {
            "kind": "dead",
            "user": text(one.key),
            "partition": one.partition,
            "code": one.code,
            "reason": one.reason,
            "since": time_of(one.timestamp),
            "canBeSentAgain": can_be_sent(one),
            "commands": [
                {"offset": one.source.offset, "time": time_of(one.timestamp)}
                | (_contents(Content(one.value or b"", one.headers)) if with_contents else {})
            ],
        }
        for one in found.dead
    ]
    return [*parked, *letters]


def _contents(content: Content | None) -> dict[str, Any]:
    if content is None:
        return {"value": None}
    return {
        "value": text(content.value),
        "headers": {name: text(value) for name, value in content.headers},
    }


def text(data: bytes | None) -> Any:
    """Return bytes as JSON can hold them: as text, or in base64 if they are not UTF-8."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def time_of(milliseconds: int) -> str:
    """Return a time, in milliseconds since the epoch, as people and programs read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))
