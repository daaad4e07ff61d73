"""I2, I3 and I4 for one partition: its events in order, the state and the documents they make.

The fold of an erased aggregate is the same whether its events can still be read or not, so state
and document are compared as ever. One whose key is gone while the event that erased it is not
among those to compare with (it is erased while this runs) was folded otherwise when its events
could be read: of that one only the versions are compared.

Pure: events, state and documents are handed in. The oracle is the fold of the events by `evolve`
and `project`, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import orjson

from models.errors import Fatal
from models.messages import Event, EventRecord
from streams.aggregate import Aggregate
from streams.audit.report import Report
from streams.elasticsearch.index import REFUSED, Document
from streams.encryption.cipher import DecryptionError, is_sealed_state, open_state
from streams.encryption.keys import PartitionKeys, no_master_key
from streams.state.snapshot import Snapshot, decode_snapshot

S = TypeVar("S")


@dataclass
class ViewDocuments:
    """The documents of a view, to be held against the events of all partitions."""

    project: Callable[[Document | None, EventRecord[Any]], Document]
    documents: dict[str, bytes] = field(default_factory=dict)
    """Encoded, by id; taken out as their events come, so that extra ones are left."""
    dead: set[str] = field(default_factory=set)
    """The aggregates of which the view's dead letters hold an event."""

    def add(self, document: Document) -> None:
        """Take in a document as it was read."""
        # A copy: what orjson returns holds on to its buffer, which is ten times as large.
        self.documents[document["id"]] = bytes(memoryview(orjson.dumps(document)))


@dataclass(slots=True)
class _Fold(Generic[S]):
    """What the events of one aggregate have come to."""

    version: int = 0
    first_source: int = -1
    last_source: int = -1

    state: S | None = None  # of the commands below the position, as the state table is
    decided: int = 0  # how many events that is
    ended: bool = False  # whether it was erased by one of them

    shredded: bool = False  # an event so far was read without its key
    erased: bool = False  # an event so far has erased it

    due: int = 0  # how many events the view must have
    seen: int = 0  # how many it has; 0 if there is no document
    refused: bool = False
    found: Document | None = None  # the view's document, until the fold gets there
    document: Document | None = None  # the fold


class HistoryAudit(Generic[S]):
    """Folds the events of a partition and compares.

    Args:
        aggregate: whose events these are.
        position: of the command topic, where the state table stands.
        view_end: of the event topic; the view has to have what is below it.
        view: the documents, or None to leave I4 out.
        report: where findings and numbers go.
        keys: of personal data, as in `PartitionAudit`.
    """

    def __init__(
        self,
        aggregate: Aggregate[S],
        *,
        position: int,
        view_end: int,
        view: ViewDocuments | None,
        report: Report,
        keys: PartitionKeys | None = None,
    ) -> None:
        self._aggregate = aggregate
        self._keys = keys
        self._position = position
        self._view_end = view_end
        self._view = view
        self._report = report
        self._i2, self._i3, self._i4 = (report.findings[name] for name in ("I2", "I3", "I4"))
        self._folds: dict[str, _Fold[S]] = {}

    def exists_at(self, aggregate_id: str, source: int) -> bool:
        """Whether the aggregate had an event when the command at offset `source` was decided."""
        fold = self._folds.get(aggregate_id)
        return fold is not None and fold.first_source < source

    def add_event(self, offset: int, event: EventRecord[Event]) -> None:
        """The next event of the partition, and its offset."""
        fold = self._folds.get(event.aggregate_id)
        if fold is None:
            fold = self._folds[event.aggregate_id] = self._new_fold(event.aggregate_id)
        self._check_order(offset, event, fold)
        fold.shredded = fold.shredded or event.event.is_shredded
        fold.erased = fold.erased or event.event.erases
        if event.source.offset < self._position:
            self._evolve(offset, event, fold)
        if self._view is not None:
            if offset < self._view_end:
                fold.due = event.sequence
            if fold.found is not None:
                self._project(self._view, event, fold)

    def conclude(self, state: Mapping[bytes, bytes]) -> None:
        """All events were added; `state` is the table's, by the ids' bytes."""
        self._report.aggregates += sum(1 for fold in self._folds.values() if fold.decided)
        for key, value in state.items():
            self._check_state(key.decode(errors="replace"), value)
        for aggregate_id, fold in self._folds.items():
            if fold.decided and aggregate_id.encode() not in state:
                self._i3.checked += 1
                self._i3.violated(f"{aggregate_id} has {fold.decided} events and no state", "lost")
            if fold.shredded and not fold.erased:
                self._i3.violated(
                    f"{aggregate_id} was not erased, and its personal data cannot be read: its key "
                    "is lost",
                    "lost",
                )
            if self._view is not None:
                self._check_document(self._view, aggregate_id, fold)

    def _new_fold(self, aggregate_id: str) -> _Fold[S]:
        fold = _Fold[S]()
        if self._view is not None:
            encoded = self._view.documents.pop(aggregate_id, None)
            if encoded is not None:
                document = orjson.loads(encoded)
                fold.refused = REFUSED in document
                fold.found = document[REFUSED] if fold.refused else document
                fold.seen = document["version"]
        return fold

    def _check_order(self, offset: int, event: EventRecord[Event], fold: _Fold[S]) -> None:
        self._report.events += 1
        self._i2.checked += 1
        if event.sequence != fold.version + 1:
            self._i2.violated(
                f"{event.aggregate_id}: after event {fold.version} comes number {event.sequence}, "
                f"{_at(offset, event)}",
                "lost" if event.sequence > fold.version else "doubled",
            )
        elif event.source.offset < fold.last_source:
            self._i2.violated(
                f"{event.aggregate_id}: event {event.sequence}, {_at(offset, event)}, follows one "
                f"of the later command at offset {fold.last_source}"
            )
        if fold.version == 0:
            fold.first_source = event.source.offset
        fold.version = event.sequence
        fold.last_source = event.source.offset

    def _evolve(self, offset: int, event: EventRecord[Event], fold: _Fold[S]) -> None:
        fold.decided += 1
        fold.ended = fold.ended or event.event.erases
        try:
            fold.state = self._aggregate.evolve(fold.state, event.event, event.timestamp)
        except Fatal as error:
            self._i2.violated(f"{event.aggregate_id}: {error} ({_at(offset, event)})")

    def _project(self, view: ViewDocuments, event: EventRecord[Event], fold: _Fold[S]) -> None:
        try:
            fold.document = view.project(fold.document, event)
        except Fatal as error:
            self._i4.violated(str(error))
            fold.found = fold.document = None
            return
        if event.sequence == fold.seen:
            differing = _differing(fold.document, fold.found or {})
            if differing and (fold.erased or not fold.shredded):
                self._i4.violated(
                    f"the document {event.aggregate_id} of version {fold.seen} differs from the "
                    f"fold of its events in {', '.join(differing)}"
                )
            fold.found = fold.document = None

    def _check_state(self, aggregate_id: str, value: bytes) -> None:
        self._i3.checked += 1
        fold = self._folds.get(aggregate_id) or _Fold[S]()
        try:
            entity = self._decode(aggregate_id, value)
        except DecryptionError as error:
            if fold.ended or not fold.erased:
                self._i3.violated(f"{aggregate_id}: its state cannot be read: {error}")
            return
        except (ValueError, TypeError) as error:
            self._i3.violated(f"{aggregate_id}: its state cannot be read: {type(error).__name__}")
            return
        if entity.version != fold.decided:
            self._i3.violated(
                f"{aggregate_id}: its state is of version {entity.version}, of its events "
                f"{fold.decided} are of commands below the position {self._position}"
            )
        elif entity.state != fold.state and (fold.ended or not fold.shredded):
            self._i3.violated(
                f"{aggregate_id}: its state of version {entity.version} is not the fold of its "
                "events"
            )

    def _decode(self, aggregate_id: str, value: bytes) -> Snapshot[S]:
        if is_sealed_state(value):
            if self._keys is None:
                raise no_master_key()
            key = aggregate_id.encode()
            value = open_state(value, key, self._keys.get(key))
        return decode_snapshot(self._aggregate, value)

    def _check_document(self, view: ViewDocuments, aggregate_id: str, fold: _Fold[S]) -> None:
        if not fold.due and not fold.seen:
            return  # newer than what the view must have
        self._i4.checked += 1
        known = aggregate_id in view.dead
        if fold.refused or (fold.seen == 0 and known):
            self._report.known_missing += 1
        if fold.refused and not known:
            self._i4.violated(
                f"the document {aggregate_id} was refused, and no dead letter of the view says so"
            )
        elif fold.seen == 0 and not known:
            self._i4.violated(f"{aggregate_id} has {fold.due} events and no document", "lost")
        elif 0 < fold.seen < fold.due:
            self._i4.violated(
                f"the document {aggregate_id} is of version {fold.seen}, it has {fold.due} events"
            )
        elif fold.found is not None:
            self._i4.violated(
                f"the document {aggregate_id} is of version {fold.seen}, the last event of it is "
                f"number {fold.version}"
            )


def check_extra_documents(view: ViewDocuments, report: Report) -> None:
    """All partitions were concluded: what is left of the documents has no events."""
    finding = report.findings["I4"]
    for aggregate_id in view.documents:
        finding.checked += 1
        finding.violated(f"the document {aggregate_id} has no events")


def _at(offset: int, event: EventRecord[Event]) -> str:
    return f"at offset {offset} (of the command at {event.source.offset})"


def _differing(one: Document, other: Document) -> list[str]:
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or one[name] != other[name]
    )
