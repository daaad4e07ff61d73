"""Sums over events, and over the documents that were made of them, which have to be equal."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

from models.messages import Event
from streams.elasticsearch.index import REFUSED, Document
from streams.views.projection import Projection

E = TypeVar("E", bound=Event)

_MODULUS = 1 << 64


class Tally(NamedTuple):
    """A sum over events, or over the documents that came of them, which has to be the same.

    `events` counts them. `checksum` is the sum of a hash of each event's document, modulo 2^64: it
    differs if a document is missing, extra, or of another version.
    """

    events: int = 0
    checksum: int = 0

    def plus(self, key: str, events: int) -> Tally:
        """With so many more events of one document."""
        return Tally(self.events + events, (self.checksum + events * _hash(key)) % _MODULUS)

    def plus_each(self, keys: Sequence[str]) -> Tally:
        """With one more event of each of these documents; some may be there more than once."""
        return Tally(self.events + len(keys), (self.checksum + sum(map(_hash, keys))) % _MODULUS)


NOTHING = Tally()


def _hash(key: str) -> int:
    encoded = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "big")


class DocumentTallies(Generic[E]):
    """What the documents of an index add up to, by partition of the event topic."""

    def __init__(self, projection: Projection[E], partitions: int) -> None:
        self._projection = projection
        self.by_partition = [NOTHING] * partitions

    def add(self, found: Document) -> None:
        """One more document; a stand-in counts as what it stands for."""
        document = found.get(REFUSED, found)
        number = self._projection.partition(document, len(self.by_partition))
        events = self._projection.events_in(document)
        self.by_partition[number] = self.by_partition[number].plus(document["id"], events)
