"""Views and projections: which events become which documents of which index.

A view consists of an index (`IndexDefinition`) and a projection; both together are its definition.
Every index stores the definition that it was created for. A program whose documents would look
different never writes to that index: it needs one of its own (`cqrs views rebuild`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Generic, TypeVar

import orjson
from msgspec import to_builtins
from msgspec.structs import replace

from models.messages import Event, EventRecord
from streams.elasticsearch.index import Document, IndexDefinition
from streams.kafka.partitioner import partition_of

E = TypeVar("E", bound=Event)


class Projection(ABC, Generic[E]):
    """Turns the events of a partition into documents.

    Every event belongs to at most one document, and every document to one partition. Each event
    raises the version of its document, so that a replay is harmless.
    """

    gapless = False
    """Whether a document's versions are 1, 2, 3 ..., so that a missing event is noticed."""

    @abstractmethod
    def key(self, record: EventRecord[E]) -> str | None:
        """Return the id of the document that an event changes; None if it changes none.

        An id has 1 to 512 bytes in UTF-8 and does not begin with ` progress `. An event with any
        other one is a dead letter, and of no document.
        """

    @abstractmethod
    def version(self, record: EventRecord[E]) -> int:
        """Return the version that the event gives its document."""

    @abstractmethod
    def fold(self, document: Document | None, record: EventRecord[E]) -> Document:
        """Return the document after the event, with `id` and `version`.

        It must be a new dict: `document` may be in a cache.
        """

    @abstractmethod
    def events_in(self, document: Document) -> int:
        """Return the number of events that a document is made of: at least 1."""

    @abstractmethod
    def partition(self, document: Document, partitions: int) -> int:
        """Return the partition of the event topic, of `partitions`, that a document belongs to."""

    def creates(self, record: EventRecord[E]) -> bool:
        """Return whether no document can exist before this event, so that none has to be read."""
        return False


class AggregateProjection(Projection[E]):
    """Makes one document per aggregate; its version is the sequence of its last event."""

    gapless = True

    def key(self, record: EventRecord[E]) -> str | None:
        """Return the aggregate's id."""
        return record.aggregate_id

    def version(self, record: EventRecord[E]) -> int:
        """Return the event's sequence."""
        return record.sequence

    def creates(self, record: EventRecord[E]) -> bool:
        """Return whether this is the first event of its aggregate."""
        return record.sequence == 1

    def events_in(self, document: Document) -> int:
        """Return the version, which counts the events."""
        return int(document["version"])

    def partition(self, document: Document, partitions: int) -> int:
        """Return the partition of the aggregate."""
        return partition_of(document["id"].encode(), partitions)


@dataclass(frozen=True)
class View(Generic[E]):
    """A view of an aggregate's events.

    Attributes:
        aggregate: Name of the aggregate.
        events: Its event types, by name.
        index: Index of the documents.
        projection: Turns the events into the documents.
        app_id: App id of the view's workers, without the namespace. It never changes.
        role: Name of the workers in `cqrs worker`.
        worker: Module with the Faust app of the workers.
        examples: Events that show everything the projection does. Their documents are part of the
            definition: a change of the projection that they do not show is not noticed.
    """

    aggregate: str
    events: Mapping[str, type[E]]
    index: IndexDefinition
    projection: Projection[E]
    app_id: str
    role: str
    worker: str
    examples: Sequence[EventRecord[E]]

    @property
    def name(self) -> str:
        """Name of the view: the alias of its index, without the namespace."""
        return self.index.alias

    @cached_property
    def definition(self) -> str:
        """16 hex digits of a hash of mapping, settings and the documents of the examples.

        Programs whose documents differ only in what the examples do not show have the same one.
        """
        sources = [self.index.to_source(document) for document in self.example_documents]
        parts = [self.index.mappings(), self.index.settings, sources]
        return sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    @property
    def group(self) -> str:
        """Consumer group of the view's workers, without the namespace.

        It depends on the definition: in a rolling upgrade, the workers of the old and those of the
        new definition each consume all partitions.
        """
        return self.group_of(self.definition)

    def group_of(self, definition: str) -> str:
        """Return the consumer group of the workers with this definition of the view."""
        return f"{self.app_id}-{definition[:8]}"

    @cached_property
    def example_documents(self) -> Sequence[Document]:
        """The documents that the examples make, one after each event. An index accepts them all."""
        return self._documents(self.examples)

    @cached_property
    def shows_personal_data(self) -> bool:
        """Whether the documents of the examples are others if their personal fields are empty."""
        return self._documents(map(_without_personal_data, self.examples)) != self.example_documents

    def _documents(self, records: Iterable[EventRecord[E]]) -> Sequence[Document]:
        documents: dict[str, Document] = {}
        found: list[Document] = []
        for record in records:
            key = self.projection.key(record)
            if key is not None:
                documents[key] = self.projection.fold(documents.get(key), record)
                found.append(documents[key])
        return found


def _without_personal_data(record: EventRecord[E]) -> EventRecord[E]:
    """Return an event as it is read without its key."""
    empty = dict.fromkeys(record.event.personal, "")
    event = type(record.event).from_wire({**to_builtins(record.event), **empty})
    return replace(record, event=event)
