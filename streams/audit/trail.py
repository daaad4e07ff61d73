"""The way of one command through the topics: produced, decided, its events written.

Pure: records are handed in as they are read, those of different topics in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson

from models.errors import Poison
from models.messages import Source, command_id_at
from models.outcomes import Accepted, Outcome, Parked, parse_outcome
from streams.aggregate import TopicNames
from streams.commands.reader import command_id_in, command_type_in
from streams.kafka.records import Record, source_of, time_of


@dataclass(frozen=True)
class Hop:
    """One step of a command that left a record."""

    name: Literal["produced", "parked", "decided", "event"]
    at: datetime
    """When the broker got its record."""
    source: Source
    """Its record."""
    aggregate_id: str | None = None
    type: str | None = None
    """Of the command or the event; None if it cannot be read."""
    sequence: int | None = None
    """Of the event."""
    outcome: Outcome | None = None
    """Of a command that is decided, or parked."""


class Trail:
    """Collects what became of a command.

    Of several commands with this id (they are duplicates, or of several aggregates) it is the first
    one whose record or outcome is read.
    """

    def __init__(self, names: TopicNames, command_id: UUID, key: bytes | None = None) -> None:
        """Look for the command with this id; with a key, only in records with that one."""
        self._names = names
        self._id = command_id
        self._text = str(command_id)
        self._key = key
        self._produced: Hop | None = None
        self._is_command_gone = False
        self._parked: Hop | None = None
        self._decided: Hop | None = None
        self._events: dict[UUID, Hop] = {}

    def add(self, record: Record) -> None:
        """Look at a record of the command, outcome or event topic."""
        if self._key is not None and record.key != self._key:
            return
        if record.topic == self._names.commands:
            self._add_command(record)
        elif self._text.encode() in (record.value or b""):
            if record.topic == self._names.outcomes:
                self._add_outcome(record)
            else:
                self._add_event(record)

    @property
    def missing_command(self) -> Source | None:
        """Where the command is, if its outcome is known and it was not read; else None."""
        is_missing = self._produced is None and not self._is_command_gone
        return self.outcome.source if is_missing and self.outcome is not None else None

    def give_up_command(self) -> None:
        """Do without the command: it is not among the records that are read."""
        self._is_command_gone = True

    @property
    def hops(self) -> Sequence[Hop]:
        """The hops from the first one on, without those behind one that is not known yet.

        Of a command that was given up the outcome tells the hop.
        """
        first = self._produced
        if first is None and self._is_command_gone and self._decided is not None:
            first = _produced_by(self._decided)
        if first is None:
            return []
        found = [first] if self._parked is None else [first, self._parked]
        if self._decided is None:
            return found
        found.append(self._decided)
        for id_ in _event_ids(self._decided):
            if id_ not in self._events:
                break
            found.append(self._events[id_])
        return found

    @property
    def outcome(self) -> Outcome | None:
        """The final outcome of the command; None while it is not known."""
        return None if self._decided is None else self._decided.outcome

    @property
    def is_complete(self) -> bool:
        """Whether the outcome and all events that it names are known."""
        if self._decided is None:
            return False
        steps = 2 if self._parked is None else 3
        return len(self.hops) == steps + len(_event_ids(self._decided))

    def _add_command(self, record: Record) -> None:
        source = source_of(record)
        is_of_another = self.outcome is not None and self.outcome.source != source
        if self._produced is not None or is_of_another:
            return
        if (command_id_in(record) or command_id_at(source)) == self._id:
            self._produced = Hop(
                "produced",
                time_of(record),
                source,
                aggregate_id=(record.key or b"").decode(errors="replace"),
                type=command_type_in(record),
            )

    def _add_outcome(self, record: Record) -> None:
        try:
            outcome = parse_outcome(record.value or b"")
        except Poison:
            return
        is_of_another = self._produced is not None and outcome.source != self._produced.source
        if self._decided is not None or outcome.command_id != self._id or is_of_another:
            return
        hop = Hop(
            "parked" if isinstance(outcome, Parked) else "decided",
            time_of(record),
            source_of(record),
            aggregate_id=outcome.aggregate_id,
            outcome=outcome,
        )
        if hop.name == "parked":
            self._parked = self._parked or hop
        elif self._parked is None or _source(self._parked) == outcome.source:
            self._decided = hop

    def _add_event(self, record: Record) -> None:
        try:
            event = orjson.loads(record.value or b"")
            if event["commandId"] != self._text:
                return
            hop = Hop(
                "event",
                time_of(record),
                source_of(record),
                aggregate_id=event["aggregateId"],
                type=event["type"],
                sequence=event["sequence"],
            )
            self._events.setdefault(UUID(event["id"]), hop)
        except (ValueError, TypeError, KeyError, AttributeError):
            return


def _event_ids(decided: Hop) -> Sequence[UUID]:
    return decided.outcome.event_ids if isinstance(decided.outcome, Accepted) else ()


def _source(hop: Hop) -> Source | None:
    return None if hop.outcome is None else hop.outcome.source


def _produced_by(decided: Hop) -> Hop:
    outcome = decided.outcome
    assert outcome is not None
    return Hop("produced", outcome.timestamp, outcome.source, aggregate_id=outcome.aggregate_id)
