"""What a view is made of: an index, and a small class that turns events into its documents.

A view is an index (`IndexDefinition`) and a projection. Both together are its definition. An index
says which definition it was made by, so a program whose documents would look different never writes
to it: it needs an index of its own (`cqrs views rebuild`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Generic, TypeVar

import orjson

from models.messages import Event, EventRecord
from streams.elasticsearch.index import Document, IndexDefinition
from streams.kafka.partitioner import partition_of

E = TypeVar("E", bound=Event)


class Projection(ABC, Generic[E]):
    """How the events of a partition become documents.

    Every event belongs to one document at most, and every document to one partition. Each event of
    a document gives it a higher version, whatever else there is: by that a replay is harmless.
    """

    gapless = False
    """Whether the versions of a document are 1, 2, 3 ..., so that a missing event is noticed."""

    @abstractmethod
    def key(self, record: EventRecord[E]) -> str | None:
        """The id of the document that an event changes, or None."""

    @abstractmethod
    def version(self, record: EventRecord[E]) -> int:
        """The version of the document after the event."""

    @abstractmethod
    def fold(self, document: Document | None, record: EventRecord[E]) -> Document:
        """The document after the event, with `id` and `version`; must not change the one given."""

    @abstractmethod
    def events_in(self, document: Document) -> int:
        """How many events a document is made of."""

    @abstractmethod
    def partition(self, document: Document, partitions: int) -> int:
        """The partition of the event topic, of so many, that a document belongs to."""

    def creates(self, record: EventRecord[E]) -> bool:
        """Whether there can be no document before this event, so that none has to be read."""
        return False


class AggregateProjection(Projection[E]):
    """One document per aggregate, whose version is the sequence of its last event."""

    gapless = True

    def key(self, record: EventRecord[E]) -> str | None:
        """The aggregate's id."""
        return record.aggregate_id

    def version(self, record: EventRecord[E]) -> int:
        """The event's sequence."""
        return record.sequence

    def creates(self, record: EventRecord[E]) -> bool:
        """The first event of an aggregate makes its document."""
        return record.sequence == 1

    def events_in(self, document: Document) -> int:
        """The version counts them."""
        return int(document["version"])

    def partition(self, document: Document, partitions: int) -> int:
        """That of the aggregate."""
        return partition_of(document["id"].encode(), partitions)


@dataclass(frozen=True)
class View(Generic[E]):
    """A view of an aggregate's events.

    Attributes:
        aggregate: The name of the aggregate.
        events: Its events, by type.
        index: Where the documents go.
        projection: How they come about.
        worker: The app id of its workers, without the namespace. It never changes.
        role: What `cqrs worker` calls them.
        examples: A history that shows all there is. What comes of it is part of the definition: a
            change of the projection shows there, or it would not be noticed.
    """

    aggregate: str
    events: Mapping[str, type[E]]
    index: IndexDefinition
    projection: Projection[E]
    app_id: str
    role: str
    examples: Sequence[EventRecord[E]]

    @property
    def name(self) -> str:
        """What people call it: the alias of its index."""
        return self.index.alias

    @cached_property
    def definition(self) -> str:
        """The same for all programs that make the same documents of the same events, 16 digits."""
        shown = [self.index.mappings(), self.index.settings, list(self._documents_of_examples())]
        return sha256(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    @property
    def group(self) -> str:
        """The consumer group of the workers that make these documents, without the namespace.

        Workers of two programs with different definitions, as in a rolling upgrade, each follow
        all partitions.
        """
        return f"{self.app_id}-{self.definition[:8]}"

    def _documents_of_examples(self) -> Iterable[Any]:
        documents: dict[str, Document] = {}
        for record in self.examples:
            key = self.projection.key(record)
            if key is not None:
                documents[key] = self.projection.fold(documents.get(key), record)
                yield self.index.to_source(documents[key])
