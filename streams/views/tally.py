"""Tallies: sums over events, and over the documents made of them, that have to be equal.

Each document says what it adds (`tally_fields`), so Elasticsearch sums them without reading any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from murmurhash2 import murmurhash3

# Elasticsearch sums in floating point, which is exact below 2^53, and a shard has less than 2^31
# documents: so a document's checksum has 22 bits.
_MODULUS = 1 << 22
_SEED = 0


class Tally(NamedTuple):
    """Sum over events, which is also the sum over the documents made of them.

    `events` is their number. `checksum` is the sum, modulo 2^22, of a hash of the document's id for
    each event. If documents are missing, extra or of another version, one of both differs: the
    checksum tells, but for one case in four million, if there are as many events too few as too
    many.
    """

    events: int = 0
    checksum: int = 0

    def plus_each(self, keys: Sequence[str]) -> Tally:
        """Add one event for each of these document ids, which may repeat."""
        return Tally(self.events + len(keys), (self.checksum + sum(map(_hash, keys))) % _MODULUS)


NO_EVENTS = Tally()


def tally_fields(partition: int, key: str, events: int) -> dict[str, int]:
    """Return the fields of a document that is made of this number of events of a partition."""
    checksum = events * _hash(key) % _MODULUS
    return {"partition": partition, "events": events, "checksum": checksum}


def tally_of_sums(events: int, checksum: int) -> Tally:
    """Return the tally of documents from the sums of these fields."""
    return Tally(events, checksum % _MODULUS)


def _hash(key: str) -> int:
    hashed: int = murmurhash3(key.encode("utf-8", "surrogatepass"), _SEED)
    return hashed
