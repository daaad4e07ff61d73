"""Checks all invariants of one partition on the records that were read from its logs.

Pure: a test can feed it any history. `history.py` checks I2, I3 and I4, `outcomes.py` the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import orjson
from msgspec.structs import replace

from models.errors import Poison
from models.messages import Source, parse_event
from models.outcomes import parse_outcome
from streams.aggregate import Aggregate, TopicNames
from streams.audit.folds import Frozen, Kept, ViewDocuments
from streams.audit.history import HistoryAudit
from streams.audit.outcomes import OutcomeAudit
from streams.audit.report import InvariantResult, Report
from streams.commands.reader import command_id_in
from streams.encryption.events import open_personal
from streams.encryption.keys import PartitionKeys
from streams.kafka.dead_letters import dead_letter_source, decided_at, is_marker
from streams.kafka.records import Record
from streams.logs import name_of
from streams.state.parked import ParkedQueue, decode_parked, parked_id

S = TypeVar("S")

_EVERYTHING = Kept()


class PartitionAudit(Generic[S]):
    """Checks one partition, or one bucket of it: add all its records, then call `conclude`.

    A bucket has all records with the keys that belong to it, and so all of each aggregate.

    Args:
        aggregate: Kind of the aggregates.
        names: Names of its topics.
        number: Number of the partition.
        frozen: Positions that the check refers to.
        view: Documents of the view, or None to leave I4 out.
        report: Receives violations and numbers.
        keys: Keys of personal data; None without a master key. It has all keys but those that were
            destroyed before the end of the event topic was looked up.
    """

    def __init__(
        self,
        aggregate: Aggregate[S],
        names: TopicNames,
        number: int,
        frozen: Frozen,
        *,
        view: ViewDocuments | None,
        report: Report,
        keys: PartitionKeys | None = None,
    ) -> None:
        self._aggregate = aggregate
        self._names = names
        self._number = number
        self._report = report
        self._history = HistoryAudit(aggregate, frozen, view=view, report=report, keys=keys)
        self._keys = keys
        self._events_from = frozen.events_from
        self._outcomes = OutcomeAudit(
            position=frozen.position, has_former=frozen.events_from > 0, report=report
        )

    def add_commands(self, records: Iterable[Record]) -> None:
        """Add the next records of the command topic."""
        for record in records:
            self._outcomes.add_command(record.offset, command_id_in(record))

    def add_outcomes(self, records: Iterable[Record]) -> None:
        """Add the next records of the outcomes topic."""
        finding = self._report.findings["I7"]
        for record in records:
            try:
                outcome = parse_outcome(record.value or b"")
            except Poison as error:
                finding.violated(f"{_at(record)} cannot be read: {error}")
                continue
            if self._is_of_partition(record, outcome.source, finding):
                self._outcomes.add_outcome(record.offset, outcome)

    def add_dead_letters(self, records: Iterable[Record]) -> None:
        """Add the next records of the topic of the commands' dead letters."""
        finding = self._report.findings["I7"]
        for record in records:
            if is_marker(record):
                continue
            source = dead_letter_source(record)
            if source is None:
                finding.violated(f"{_at(record)} does not say of which command it is")
                continue
            if self._is_of_partition(record, source, finding):
                self._outcomes.add_dead_letter(source.offset, decided_at(record, source))

    def add_events(self, records: Iterable[Record]) -> None:
        """Add the next records of the event topic.

        Raises:
            Fatal: One is encrypted, and the master key is missing or wrong.
        """
        finding = self._report.findings["I2"]
        for record in records:
            try:
                data = _object_in(record)
                open_personal(data, self._aggregate.events, self._keys)
                event = parse_event(data, self._aggregate.events, offset=record.offset)
            except Poison as error:
                finding.violated(f"{_at(record)} cannot be read: {error}")
                continue
            if record.key != event.aggregate_id.encode():
                finding.violated(f"{_at(record)} has another key than the id of its aggregate")
            if self._is_of_partition(record, event.source, finding):
                self._history.add_event(record.offset, event)
                if record.offset >= self._events_from:
                    self._outcomes.add_event(event)

    def conclude(self, state: Mapping[bytes, bytes], kept: Kept = _EVERYTHING) -> None:
        """Compare what was added, and complete the report.

        Args:
            state: Encoded records of the changelog, by their keys: the states by the bytes of the
                aggregates' ids, and the parked commands (`parked_key`).
            kept: What retention has left of the partition.
        """
        self.conclude_states(state)
        self._outcomes.conclude(kept, self._history.exists_at, self._parked_in(state))

    def conclude_states(self, state: Mapping[bytes, bytes]) -> None:
        """Compare only the events that were added with these states, as `conclude` does."""
        self._history.conclude({key: state[key] for key in state if parked_id(key) is None})

    def _parked_in(self, state: Mapping[bytes, bytes]) -> Mapping[bytes, ParkedQueue]:
        found = {}
        for key, value in state.items():
            id_ = parked_id(key)
            if id_ is None:
                continue
            try:
                parked = decode_parked(value)
            except ValueError:
                self._report.findings["I7"].violated(
                    f"the parked commands of {id_.decode(errors='replace')} cannot be read"
                )
                continue
            if parked is not None:
                found[id_] = parked
        return found

    def _is_of_partition(self, record: Record, source: Source, finding: InvariantResult) -> bool:
        """Return whether a command is of this partition; report a violation if it is not."""
        if (source.topic, source.partition) == (self._names.commands, self._number):
            return True
        finding.violated(f"{_at(record)} is of a command of {name_of(source)}")
        return False


def outcome_turn(record: Record) -> Source | None:
    """Return the source of what an outcome was decided by; None if the record is no outcome."""
    try:
        outcome = parse_outcome(record.value or b"")
    except Poison:
        return None
    return replace(outcome.source, offset=outcome.decided_at)


def dead_letter_turn(record: Record) -> Source | None:
    """Return the source of what a dead letter was decided by; None if the headers do not say it."""
    source = dead_letter_source(record)
    return None if source is None else replace(source, offset=decided_at(record, source))


def _object_in(record: Record) -> dict[str, Any]:
    try:
        data = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        raise Poison("malformed-json", "the value is not JSON") from None
    if not isinstance(data, dict):
        raise Poison("not-an-object", "the value must be a JSON object")
    return data


def _at(record: Record) -> str:
    return f"{name_of(record)} offset {record.offset}"
