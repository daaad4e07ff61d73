"""Checks I2, I3 and I4 of one partition: the order of its events, the states and the documents.

Pure: events, states and documents are handed in. The oracle is the fold of the events by `evolve`
and `project`.

What is compared once an aggregate is erased: see `streams/audit/folds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from models.errors import Fatal
from models.messages import Event, EventRecord
from streams.aggregate import Aggregate
from streams.audit.folds import Frozen, History, StateFold, ViewDocuments, ViewFold
from streams.audit.report import Report
from streams.elasticsearch.index import Document
from streams.encryption.cipher import DecryptionError, is_sealed_state, open_state
from streams.encryption.keys import PartitionKeys, no_master_key
from streams.state.snapshot import Snapshot, decode_snapshot
from streams.views.checkpoint import can_be_document

S = TypeVar("S")

# Stands for the offsets of all commands of a former topic: before those of this one.
_FORMER = -1


class HistoryAudit(Generic[S]):
    """Folds the events of a partition, and compares the folds with states and documents.

    Args:
        aggregate: Kind of the aggregates.
        frozen: Positions that the check refers to.
        view: Documents of the view, or None to leave I4 out.
        report: Receives violations and numbers.
        keys: Keys of personal data, as for `PartitionAudit`.
    """

    def __init__(
        self,
        aggregate: Aggregate[S],
        frozen: Frozen,
        *,
        view: ViewDocuments | None,
        report: Report,
        keys: PartitionKeys | None = None,
    ) -> None:
        self._aggregate = aggregate
        self._frozen = frozen
        self._keys = keys
        self._view = view
        self._report = report
        self._i2, self._i3, self._i4 = (report.findings[name] for name in ("I2", "I3", "I4"))
        self._histories: dict[str, History[S]] = {}

    def exists_at(self, aggregate_id: str, source: int) -> bool:
        """Return whether the aggregate had an event before the command at offset `source`."""
        history = self._histories.get(aggregate_id)
        return history is not None and history.first_source < source

    def add_event(self, offset: int, event: EventRecord[Event]) -> None:
        """Add the next event of the partition, with its offset."""
        history = self._histories.get(event.aggregate_id)
        if history is None:
            found = None if self._view is None else self._view.take(event.aggregate_id)
            history = self._histories[event.aggregate_id] = History(StateFold(), ViewFold.of(found))
        source = _FORMER if offset < self._frozen.events_from else event.source.offset
        self._check_order(offset, event, source, history)
        history.shredded = history.shredded or event.event.is_shredded
        history.erased = history.erased or event.event.erases
        if source < self._frozen.position:
            history.state_erased = history.state_erased or event.event.erases
            self._evolve(offset, event, history.state)
        if self._view is not None:
            if offset < self._frozen.view_end:
                history.view.required = event.sequence
            if history.view.found is not None:
                self._project(self._view, event, history)

    def conclude(self, state: Mapping[bytes, bytes]) -> None:
        """Compare the folds with the states and documents, after all events were added.

        Args:
            state: Encoded states of the state table, by the bytes of the aggregates' ids.
        """
        self._report.aggregates += sum(
            1 for history in self._histories.values() if history.state.events
        )
        for key, value in state.items():
            self._check_state(key.decode(errors="replace"), value)
        for aggregate_id, history in self._histories.items():
            events = history.state.events
            if events and aggregate_id.encode() not in state:
                self._i3.checked += 1
                self._i3.violated(f"{aggregate_id} has {events} events and no state", "lost")
            if history.shredded and not history.erased:
                self._i3.violated(
                    f"{aggregate_id} was not erased, and its personal data cannot be read: its key "
                    "is lost",
                    "lost",
                )
            if self._view is not None:
                self._check_document(self._view, aggregate_id, history)

    def _check_order(
        self, offset: int, event: EventRecord[Event], source: int, history: History[S]
    ) -> None:
        self._report.events += 1
        self._i2.checked += 1
        if event.sequence != history.version + 1:
            self._i2.violated(
                f"{event.aggregate_id}: after event {history.version} comes number "
                f"{event.sequence}, {_at(offset, event)}",
                "lost" if event.sequence > history.version else "doubled",
            )
        elif source < history.last_source:
            self._i2.violated(
                f"{event.aggregate_id}: event {event.sequence}, {_at(offset, event)}, follows one "
                f"of the later command at offset {history.last_source}"
            )
        if history.version == 0:
            history.first_source = source
        history.version = event.sequence
        history.last_source = source

    def _evolve(self, offset: int, event: EventRecord[Event], fold: StateFold[S]) -> None:
        fold.events += 1
        try:
            fold.state = self._aggregate.evolve(fold.state, event.event, event.timestamp)
        except Fatal as error:
            self._i2.violated(f"{event.aggregate_id}: {error} ({_at(offset, event)})")

    def _project(self, view: ViewDocuments, event: EventRecord[Event], history: History[S]) -> None:
        fold = history.view
        try:
            fold.document = view.project(fold.document, event)
        except Fatal as error:
            self._i4.violated(str(error))
            fold.found = fold.document = None
            return
        if event.sequence == fold.found_version:
            differing = _differing(fold.document, fold.found or {})
            if differing and (history.erased or not history.shredded):
                self._i4.violated(
                    f"the document {event.aggregate_id} of version {fold.found_version} differs "
                    f"from the fold of its events in {', '.join(differing)}"
                )
            fold.found = fold.document = None

    def _check_state(self, aggregate_id: str, value: bytes) -> None:
        self._i3.checked += 1
        history = self._histories.get(aggregate_id) or History(StateFold[S](), ViewFold())
        try:
            snapshot = self._decode(aggregate_id, value)
        except DecryptionError as error:
            if history.state_erased or not history.erased:
                self._i3.violated(f"{aggregate_id}: its state cannot be read: {error}")
            return
        except (ValueError, TypeError) as error:
            self._i3.violated(f"{aggregate_id}: its state cannot be read: {type(error).__name__}")
            return
        fold = history.state
        if snapshot.version != fold.events:
            self._i3.violated(
                f"{aggregate_id}: its state is of version {snapshot.version}, of its events "
                f"{fold.events} are of commands below the position {self._frozen.position}"
            )
        elif snapshot.state != fold.state and (history.state_erased or not history.shredded):
            self._i3.violated(
                f"{aggregate_id}: its state of version {snapshot.version} is not the fold of its "
                "events"
            )

    def _decode(self, aggregate_id: str, value: bytes) -> Snapshot[S]:
        if is_sealed_state(value):
            if self._keys is None:
                raise no_master_key()
            key = aggregate_id.encode()
            value = open_state(value, key, self._keys.get(key))
        return decode_snapshot(self._aggregate, value)

    def _check_document(self, view: ViewDocuments, aggregate_id: str, history: History[S]) -> None:
        fold = history.view
        if not fold.required and not fold.found_version:
            return  # newer than what the view must have
        self._i4.checked += 1
        is_missing = fold.found_version == 0
        is_known = view.has_dead_letter(aggregate_id)
        # Of every refused document of a possible id there is a stand-in, so without one it is lost.
        cannot_exist = is_missing and is_known and not can_be_document(aggregate_id)
        if fold.refused or cannot_exist:
            self._report.known_missing += 1
        if fold.refused and not is_known:
            self._i4.violated(
                f"the document {aggregate_id} was refused, and no dead letter of the view says so"
            )
        elif is_missing and not cannot_exist:
            self._i4.violated(f"{aggregate_id} has {fold.required} events and no document", "lost")
        elif 0 < fold.found_version < fold.required:
            self._i4.violated(
                f"the document {aggregate_id} is of version {fold.found_version}, it has "
                f"{fold.required} events"
            )
        elif fold.found is not None:
            self._i4.violated(
                f"the document {aggregate_id} is of version {fold.found_version}, the last event "
                f"of it is number {history.version}"
            )


def check_extra_documents(view: ViewDocuments, report: Report) -> None:
    """Report the documents that no events belong to, after all partitions were concluded."""
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
