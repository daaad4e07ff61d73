"""Tokens: the sender of an accepted command gets one; a query that is given it sees the write.

A token names the command and its place on the log. The command's events contain the same, so a view
knows whether it has them. As text it is opaque: letters, digits, `-` and `_`.

It is neither secret nor signed. The checksum detects typos and texts that were cut. A client with a
made-up token can make its own query wait until the timeout, and nothing else.
"""

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from models.errors import InvalidToken
from models.messages import Source
from models.wire import encode

_VERSION = 1
_CHECKSUM_BYTES = 4
_MAX_NUMBER = 2**63 - 1


class Point(NamedTuple):
    """An accepted command: its place on the log, and the sequence of its last event."""

    topic: str
    partition: int
    offset: int
    aggregate_id: str
    sequence: int


class Token(msgspec.Struct, frozen=True):
    """One or several writes to one Kafka cluster.

    A view that has a command's events has those of all commands before it in its partition. So one
    point per partition is enough, and the token of a whole session stays small.

    Attributes:
        cluster: Id of the Kafka cluster.
        points: The last write to each partition, in the order of topics and partitions.
    """

    cluster: str
    points: tuple[Point, ...]

    def __or__(self, other: "Token") -> "Token":
        """Join both into one. Raises InvalidToken if they are of different clusters."""
        if self.cluster != other.cluster:
            raise InvalidToken("tokens of different Kafka clusters cannot be joined")
        last: dict[tuple[str, int], Point] = {}
        for point in sorted(self.points + other.points):
            last[point.topic, point.partition] = point
        return Token(self.cluster, tuple(last.values()))

    def __str__(self) -> str:
        """Return the text."""
        return _text(self.cluster, *self.points)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Parse what `str` returns. Raises InvalidToken for any other text."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            decoded = b64decode(padded, altchars=b"-_", validate=True)
            token = _read(json.loads(decoded[_CHECKSUM_BYTES:]))
            # Each token has exactly one text, checksum included
            if str(token) == text:
                return token
        except (ValueError, TypeError, AttributeError, RecursionError):
            pass  # whatever the error, it is no token
        raise InvalidToken("invalid token: pass it on exactly as you received it")


def token_text(cluster: str, source: Source, aggregate_id: str, sequence: int) -> str:
    """Return the token of one command as text; `sequence` is that of its last event.

    It takes about a microsecond: it is built without a `Token`, which would take longer.
    """
    return _text(cluster, (source.topic, source.partition, source.offset, aggregate_id, sequence))


def join(tokens: Iterable[Token | str]) -> Token | None:
    """Join all into one; None if there are none. Raises InvalidToken."""
    joined: Token | None = None
    for each in tokens:
        token = each if isinstance(each, Token) else Token.parse(each)
        joined = token if joined is None else joined | token
    return joined


def _text(cluster: str, *points: tuple[str, int, int, str, int]) -> str:
    data = encode((_VERSION, cluster, *points))
    return (
        urlsafe_b64encode(crc32(data).to_bytes(_CHECKSUM_BYTES, "big") + data).decode().rstrip("=")
    )


def _read(data: Any) -> Token:
    """Return the token that was written as this. Raises ValueError or TypeError if none was."""
    version, cluster, *points = data
    if version != _VERSION or type(cluster) is not str or not points:
        raise ValueError("of another version")
    read = [Point(*point) for point in points]
    for point in read:
        whole = (point.partition, point.offset, point.sequence)
        if not all(type(number) is int and 0 <= number <= _MAX_NUMBER for number in whole):
            raise ValueError("a number that is none")
        (point.topic + point.aggregate_id).encode()
    places = [point[:2] for point in read]
    if places != sorted(set(places)):
        raise ValueError("two points of a partition, or out of order")
    return Token(cluster, tuple(read))
