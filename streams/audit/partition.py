"""Everything that `verify` checks of one partition, on the records as they were read.

Pure: a test can feed it any history. `audit_history` has I2, I3 and I4, `audit_outcomes` the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import orjson

from models.errors import Poison
from models.messages import Source, parse_event
from models.outcomes import parse_outcome
from streams.aggregate import Aggregate, TopicNames
from streams.audit.history import HistoryAudit, ViewDocuments
from streams.audit.outcomes import OutcomeAudit
from streams.audit.report import CheckedRange, InvariantResult, Report
from streams.encryption.keys import PartitionKeys
from streams.kafka.dead_letters import SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC
from streams.kafka.records import Record
from streams.views.event_reader import open_personal

S = TypeVar("S")


class PartitionAudit(Generic[S]):
    """Checks one partition: feed it all records of its logs, then `conclude`.

    Args:
        aggregate: whose partition it is.
        names: of its topics.
        number: of the partition.
        position: of the command topic, where `state` stands: what came of the commands below it is
            checked, what came of later ones only serves to understand newer documents.
        view_end: of the event topic; the view has to have what is below it.
        view: the documents, or None to leave I4 out.
        report: where findings and numbers go.
        keys: of personal data; None if nothing is encrypted. Keys that were destroyed before the
            events' end was looked up are the only ones that are missing.
    """

    def __init__(
        self,
        aggregate: Aggregate[S],
        names: TopicNames,
        number: int,
        *,
        position: int,
        view_end: int,
        view: ViewDocuments | None,
        report: Report,
        keys: PartitionKeys | None = None,
    ) -> None:
        self._aggregate = aggregate
        self._names = names
        self._number = number
        self._position = position
        self._report = report
        self._history = HistoryAudit(
            aggregate, position=position, view_end=view_end, view=view, report=report, keys=keys
        )
        self._keys = keys
        self._outcomes = OutcomeAudit(position=position, report=report)
        # The first source that outcomes and dead letters tell of.
        self._first_outcome = self._first_letter = position

    def add_commands(self, records: Iterable[Record]) -> None:
        """The next records of the command topic."""
        for record in records:
            self._outcomes.add_command(record.offset)

    def add_outcomes(self, records: Iterable[Record]) -> None:
        """The next records of the outcome topic."""
        finding = self._report.findings["I7"]
        for record in records:
            try:
                outcome = parse_outcome(record.value or b"")
            except Poison as error:
                finding.violated(f"{_at(record)} cannot be read: {error}")
                continue
            if self._is_of_here(record, outcome.source, finding):
                self._first_outcome = min(self._first_outcome, outcome.source.offset)
                self._outcomes.add_outcome(record.offset, outcome)

    def add_dead_letters(self, records: Iterable[Record]) -> None:
        """The next records of the command's dead letters."""
        finding = self._report.findings["I7"]
        for record in records:
            said = dict(record.headers)
            try:
                source = Source(
                    (said[SOURCE_TOPIC] or b"").decode(),
                    int(said[SOURCE_PARTITION] or b""),
                    int(said[SOURCE_OFFSET] or b""),
                )
            except (KeyError, ValueError):
                finding.violated(f"{_at(record)} does not say of which command it is")
                continue
            if self._is_of_here(record, source, finding):
                self._first_letter = min(self._first_letter, source.offset)
                self._outcomes.add_dead_letter(source.offset)

    def add_events(self, records: Iterable[Record]) -> None:
        """The next records of the event topic."""
        finding = self._report.findings["I2"]
        for record in records:
            try:
                data = _object_in(record)
                open_personal(data, self._aggregate.events, self._keys)
                event = parse_event(data, self._aggregate.events)
            except Poison as error:
                finding.violated(f"{_at(record)} cannot be read: {error}")
                continue
            if record.key != event.aggregate_id.encode():
                finding.violated(f"{_at(record)} lies under another key than its aggregate")
            if self._is_of_here(record, event.source, finding):
                self._history.add_event(record.offset, event)
                self._outcomes.add_event(event)

    def conclude(
        self,
        state: Mapping[bytes, bytes],
        *,
        commands_from: int = 0,
        outcomes_from: int = 0,
        letters_from: int = 0,
    ) -> None:
        """All was fed; `state` is the table's, the rest the first offsets that retention left."""
        self._history.conclude(state)
        start = self._outcomes.conclude(
            commands_from=commands_from,
            # What expired is known by the first that is left.
            outcomes_from=self._first_outcome if outcomes_from else 0,
            letters_from=self._first_letter if letters_from else 0,
            exists_at=self._history.exists_at,
        )
        self._report.ranges.append(CheckedRange(self._number, start, max(start, self._position)))

    def _is_of_here(self, record: Record, source: Source, finding: InvariantResult) -> bool:
        if (source.topic, source.partition) == (self._names.commands, self._number):
            return True
        finding.violated(f"{_at(record)} is of a command of {source.topic}[{source.partition}]")
        return False


def _object_in(record: Record) -> dict[str, Any]:
    try:
        data = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        raise Poison("malformed-json", "the value is not JSON") from None
    if not isinstance(data, dict):
        raise Poison("not-an-object", "the value must be a JSON object")
    return data


def _at(record: Record) -> str:
    return f"{record.topic}[{record.partition}] offset {record.offset}"
