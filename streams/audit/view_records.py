"""The documents and dead letters of a view on disk, by partition and bucket."""

from __future__ import annotations

from typing import Any

import orjson

from streams.audit.folds import ViewDocuments
from streams.audit.spill import Spill
from streams.elasticsearch.index import Document
from streams.kafka.partitioner import partition_of
from streams.kafka.records import cut_key
from streams.views.projection import View


class ViewRecords(Spill):
    """What a view has, to be compared with the events of one bucket of a partition after another.

    A document is found again with its events only if both have the same key, in the same partition.
    """

    def __init__(self, view: View[Any], partitions: int, buckets: int) -> None:
        super().__init__(2 * partitions, buckets)
        self._projection = view.projection
        self._partitions = partitions

    def add_document(self, document: Document) -> None:
        """Add a document as `ViewReader.scan` yields it."""
        key = document["id"].encode()
        self.add(partition_of(key, self._partitions), key, orjson.dumps(document))

    def add_dead_letter(self, partition: int, key: bytes) -> None:
        """Add the key of a dead letter of this view."""
        self.add(self._partitions + partition, key, cut_key(key))

    def documents(self, partition: int, bucket: int) -> ViewDocuments:
        """Return what is in one bucket of a partition."""
        found = ViewDocuments(self._projection.fold)
        for encoded in self.read(partition, bucket):
            found.documents[orjson.loads(encoded)["id"]] = encoded
        found.dead_lettered.update(self.read(self._partitions + partition, bucket))
        return found
