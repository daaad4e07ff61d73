"""Failed commands as `cqrs dead` takes and shows them: which ones are meant, and how they look."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from streams.commands.failed import DeadCommand, FailedCommands, ParkedAggregate
from streams.commands.send_again import SENT_BY_DEFAULT, can_be_sent, newest
from streams.state.parked import Content

Text = str | Mapping[str, str] | None
"""Bytes as JSON can hold them: text, or `{"base64": ...}` if they are not UTF-8; null if none."""


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


@dataclass(frozen=True)
class Failed:
    """What the records of a user that failed have in common."""

    kind: Literal["parked", "dead"]
    """`parked`: commands of a user that wait. `dead`: one dead letter."""
    user: Text
    partition: int
    """Of the command topic."""
    code: str
    """Of the failure."""
    reason: str
    attempts: int | None
    """How often it was tried; null of a dead letter."""
    since: str
    """Time of the record that failed, RFC 3339."""
    can_be_sent_again: bool | None
    """Whether `cqrs dead replay` can send it; null of parked commands, which are replayed."""


@dataclass(frozen=True)
class FailedCommand:
    """A command that failed, or that waits behind it."""

    offset: int
    """On the command topic."""
    time: str
    """Of its record, RFC 3339."""


@dataclass(frozen=True)
class FailedContent(FailedCommand):
    """Such a command with its contents."""

    value: Text | None
    """Null if it is encrypted and cannot be decrypted here, as for the headers."""
    headers: Mapping[str, Text] | None


@dataclass(frozen=True)
class FailedRecord(Failed):
    """The parked commands of a user, or a dead letter."""

    commands: list[FailedCommand]
    """The first one failed; the others wait."""


@dataclass(frozen=True)
class FailedContents(Failed):
    """The parked commands of a user, or a dead letter, with the contents."""

    commands: list[FailedContent]
    """The first one failed; the others wait."""


def failed_records(found: FailedCommands) -> list[FailedRecord]:
    """Return what failed, without contents: parked commands by user, then dead letters."""
    return [
        FailedRecord(**head, commands=[FailedCommand(offset, at) for offset, at, _ in commands])
        for head, commands in _failed(found)
    ]


def failed_contents(found: FailedCommands) -> list[FailedContents]:
    """Return what failed, with contents: parked commands by user, then dead letters."""
    return [
        FailedContents(
            **head,
            commands=[FailedContent(offset, at, *_texts(one)) for offset, at, one in commands],
        )
        for head, commands in _failed(found)
    ]


def _failed(
    found: FailedCommands,
) -> Iterator[tuple[dict[str, Any], list[tuple[int, str, Content | None]]]]:
    """Yield the fields of `Failed`, and the offset, time and content of each command."""
    for one in found.parked:
        failure = one.parked.failure
        yield (
            {
                "kind": "parked",
                "user": one.aggregate_id,
                "partition": one.partition,
                "code": failure.code,
                "reason": failure.reason,
                "attempts": failure.attempts,
                "since": time_of(one.parked.first.timestamp),
                "can_be_sent_again": None,
            },
            [
                (waiting.offset, time_of(waiting.timestamp), content)
                for waiting, content in zip(one.parked.commands, one.contents, strict=True)
            ],
        )
    for letter in found.dead:
        at = time_of(letter.timestamp)
        yield (
            {
                "kind": "dead",
                "user": text(letter.key),
                "partition": letter.partition,
                "code": letter.code,
                "reason": letter.reason,
                "attempts": None,
                "since": at,
                "can_be_sent_again": can_be_sent(letter),
            },
            [(letter.source.offset, at, Content(letter.value or b"", letter.headers))],
        )


def _texts(content: Content | None) -> tuple[Any, Any]:
    """Return value and headers as JSON can hold them."""
    if content is None:
        return None, None
    return text(content.value), {name: text(value) for name, value in content.headers}


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
