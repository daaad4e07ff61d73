"""Tallies: sums over events, and over the documents made of them, that have to be equal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

from models.messages import Event
from streams.elasticsearch.index import REFUSED, Document
from streams.views.projection import Projection

E = TypeVar("E", bound=Event)

_MODULUS = 1 << 64

_EXTRA: Document = {"id": ""}  # no document has that id


class Tally(NamedTuple):
    """Sum over events, which can also be computed from the documents made of them.

    `events` is their number. `checksum` is the sum, modulo 2^64, of a hash of the document's id for
    each event: it differs if a document is missing, extra, or of another version.
    """

    events: int = 0
    checksum: int = 0

    def plus(self, key: str, events: int) -> Tally:
        """Add this number of events of one document."""
        return Tally(self.events + events, (self.checksum + events * _hash(key)) % _MODULUS)

    def plus_each(self, keys: Sequence[str]) -> Tally:
        """Add one event for each of these document ids, which may repeat."""
        return Tally(self.events + len(keys), (self.checksum + sum(map(_hash, keys))) % _MODULUS)


NO_EVENTS = Tally()


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies of different documents."""
    events, checksums = zip(NO_EVENTS, *tallies, strict=True)
    return Tally(sum(events), sum(checksums) % _MODULUS)


def _hash(key: str) -> int:
    encoded = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "big")


class DocumentTallies(Generic[E]):
    """Tallies of an index's documents, by partition of the event topic."""

    def __init__(self, projection: Projection[E], partitions: int) -> None:
        self._projection = projection
        self._events = [0] * partitions
        self._checksums = [0] * partitions

    @property
    def by_partition(self) -> list[Tally]:
        """The tallies so far."""
        return [
            Tally(events, checksum % _MODULUS)
            for events, checksum in zip(self._events, self._checksums, strict=True)
        ]

    def add_all(self, documents: Iterable[Document]) -> None:
        """Add documents; a stand-in counts as the document that it stands for.

        One that no events make, because somebody else wrote it, counts so that no sum of events is
        the same.
        """
        partition_of, events_in = self._projection.partition, self._projection.events_in
        partitions = len(self._events)
        for found in documents:
            document = found.get(REFUSED, found)
            try:
                number, events = partition_of(document, partitions), events_in(document)
                is_of_view = 0 <= number < partitions and events > 0
            except (LookupError, TypeError, ValueError):
                is_of_view = False
            if not is_of_view:
                number, events, document = 0, 1, _EXTRA
            self._events[number] += events
            self._checksums[number] += events * _hash(document["id"])
