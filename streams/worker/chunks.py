"""Chunks, which the pipeline moves instead of single messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from faust.types import TP

from streams.kafka.records import Record, size_of

# Keys, values and headers of one chunk, also of a joined one; a few records may exceed it.
MAX_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Chunk:
    """Records of one partition as they were fetched, or a range of positions without any.

    ``start`` is the position that the records were fetched from and ``end`` the position after
    them. Both are positions, not offsets of records: commit markers and compaction leave holes
    between records, so only positions tell whether a record is missing.

    With a ``failure`` it has no records: the log could not be read at ``end``.
    """

    tp: TP
    records: Sequence[Record]
    start: int
    end: int
    failure: Exception | None = None

    @cached_property
    def size(self) -> int:
        """Size of keys, values and headers in bytes."""
        return size_of(self.records)

    def followed_by(self, other: Chunk) -> bool:
        """Whether ``other`` starts exactly where this one ends, and neither is a failure."""
        return other.start == self.end and self.failure is None and other.failure is None

    def joined_with(self, other: Chunk) -> Chunk:
        """Return this chunk and the one that follows it as one chunk."""
        records = [*self.records, *other.records]
        return Chunk(self.tp, records, self.start, other.end)
