"""What follows from decisions: the records to write for a group of commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

from msgspec.structs import replace

from models.errors import Poison, Rejected
from models.messages import Command, Event, EventRecord, Source
from models.outcomes import Outcome
from models.wire import encode
from streams import tracing
from streams.commands import replies
from streams.commands.chunk_metrics import ChunkMetrics
from streams.commands.control import Control
from streams.commands.decider import (
    Decision,
    Ended,
    Ending,
    NewEvents,
    Obeyed,
    Readable,
    Waits,
)
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import dead_letter
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record, reply_key, source_of
from streams.kafka.transactions import OutputRecord


@dataclass
class Outputs:
    """Output records of a group of commands."""

    events: list[OutputRecord] = field(default_factory=list)
    outcomes: list[OutputRecord] = field(default_factory=list)
    dead: list[OutputRecord] = field(default_factory=list)
    ended: dict[int, list[tuple[Ended, Outcome]]] = field(default_factory=dict)
    """Commands that were parked, with their final outcomes, by the offset of what ended them."""
    overtaken: list[Sequence[Event]] = field(default_factory=list)
    """Events of commands that did so without being control records."""


class Conclusions:
    """Makes events, outcomes and dead letters of the decisions of one partition."""

    def __init__(
        self,
        sealer: PartitionSealer,
        is_erased: Callable[[bytes | None], bool],
        cluster: str,
        *,
        partitions: int,
    ) -> None:
        """Create it.

        Args:
            sealer: encrypts events and dead letters.
            is_erased: whether the aggregate of a record's key was erased.
            cluster: id of the Kafka cluster, for the tokens.
            partitions: number of partitions of the command topic.
        """
        self._sealer = sealer
        self._is_erased = is_erased
        self._cluster = cluster
        self._partitions = partitions

    def conclude(
        self,
        records: Sequence[Record],
        commands: Sequence[Readable],
        decisions: Sequence[Decision | Ending],
        measured: ChunkMetrics,
    ) -> Outputs:
        """Return what follows from the decisions about some records; count it."""
        outputs = Outputs()
        outcomes = [
            self._conclude(record, command, decision, outputs, record)
            for record, command, decision in zip(records, commands, decisions, strict=True)
        ]
        outputs.outcomes = [
            OutputRecord(reply_key(record), encode(outcome))
            for record, outcome in zip(records, outcomes, strict=True)
        ]
        if tracing.is_enabled():
            _carry_contexts(records, decisions, outputs)
        decided = (one.events for one in decisions if isinstance(one, NewEvents))
        measured.add(commands, outcomes, chain.from_iterable(decided))
        if outputs.ended:
            self._add_ended(records, outputs, measured)
        return outputs

    def _conclude(
        self,
        record: Record,
        command: Readable,
        decision: Decision | Ending,
        outputs: Outputs,
        by: Record,
    ) -> Outcome:
        """Return the outcome; add the events or the dead letter to the outputs.

        `by` is the record in whose turn it was decided: another one if the command was parked.
        """
        # Most are accepted. A pattern for them would take three times as long.
        if isinstance(decision, NewEvents):
            assert isinstance(command, Command)
            source = source_of(record)
            ids = replies.event_ids_of(command, decision.acceptance)
            events_source = source if by is record else source_of(by)
            self._add_events(record, command, decision, ids, outputs, events_source)
            return replies.accepted(
                record, source, command, decision.acceptance.sequence, ids, self._cluster
            )
        match decision:
            case Poison():
                letter = dead_letter(record, decision, by)
                is_elsewhere = self._is_keyed_elsewhere(record, decision)
                sealed = self._sealer.seal_dead_letter(letter, keyed_elsewhere=is_elsewhere)
                outputs.dead.append(sealed)
                return replies.dead_lettered(record, decision)
            case Ending():
                return self._conclude_ending(record, command, decision, outputs)
            case Waits():
                return replies.parked(record, command, decision.failure, decision.behind)
        assert isinstance(command, Command)
        if isinstance(decision, Rejected):
            return replies.rejected(record, command, decision)
        return replies.duplicate(record, command, decision, self._cluster)

    def _conclude_ending(
        self, record: Record, command: Readable, ending: Ending, outputs: Outputs
    ) -> Outcome:
        """Conclude the parked commands that a record ends as well; return its own outcome."""
        outcome: Outcome
        if isinstance(ending.own, Obeyed):
            assert isinstance(command, Control)
            outcome = replies.unparked(record, command, ending.own, len(ending.ended))
        else:
            outcome = self._conclude(record, command, ending.own, outputs, record)
            if isinstance(ending.own, NewEvents):
                outputs.overtaken.append(ending.own.events)
        outputs.ended[record.offset] = [
            (
                one,
                replies.ended_by(
                    record,
                    self._conclude(one.record, one.command, one.decision, outputs, record),
                    one.command,
                    self._cluster,
                ),
            )
            for one in ending.ended
        ]
        return outcome

    def _add_ended(
        self, records: Sequence[Record], outputs: Outputs, measured: ChunkMetrics
    ) -> None:
        """Add the outcomes of parked commands, each before that of the record that ended it."""
        own, outputs.outcomes = outputs.outcomes, []
        for record, outcome in zip(records, own, strict=True):
            ended = outputs.ended.get(record.offset, ())
            outputs.outcomes += [OutputRecord(record.key, encode(reply)) for _, reply in ended]
            outputs.outcomes.append(outcome)
            decisions = (one.decision for one, _ in ended)
            events = (one.events for one in decisions if isinstance(one, NewEvents))
            measured.add(
                [one.command for one, _ in ended],
                [reply for _, reply in ended],
                chain.from_iterable(events),
            )
        measured.add((), (), chain.from_iterable(outputs.overtaken))

    def _is_keyed_elsewhere(self, record: Record, poison: Poison) -> bool:
        """Whether the aggregate of a record has or had a data key, although none is here.

        It is in the partition that it belongs to, or gone: lost, if its state cannot be read, or
        destroyed when it was erased.
        """
        return (
            poison.code == "unreadable-state"
            or (
                record.key is not None
                and partition_of(record.key, self._partitions) != record.partition
            )
            or self._is_erased(record.key)
        )

    def _add_events(
        self,
        record: Record,
        command: Command,
        new: NewEvents,
        ids: Sequence[UUID],
        outputs: Outputs,
        source: Source,
    ) -> None:
        first = new.acceptance.sequence - len(new.events) + 1
        for sequence, (id_, event) in enumerate(zip(ids, new.events, strict=True), first):
            envelope = EventRecord(
                id=id_,
                aggregate_id=command.aggregate_id,
                sequence=sequence,
                timestamp=command.timestamp,
                command_id=command.id,
                correlation_id=command.correlation_id,
                causation_id=command.causation_id,
                source=source,
                event=event,
            )
            outputs.events.append(OutputRecord(record.key, self._sealer.seal_event(envelope)))


def _carry_contexts(
    records: Sequence[Record], decisions: Sequence[Decision | Ending], outputs: Outputs
) -> None:
    """Add the trace context of each command that has one to its outcome and its events."""
    end = 0
    for index, (record, decision) in enumerate(zip(records, decisions, strict=True)):
        start = end
        end += _number_of_events(decision)
        headers = tracing.context_headers(record)
        if headers:
            outputs.outcomes[index] = replace(outputs.outcomes[index], headers=headers)
            for event in range(start, end):
                outputs.events[event] = replace(outputs.events[event], headers=headers)


def _number_of_events(decision: Decision | Ending) -> int:
    if isinstance(decision, NewEvents):
        return len(decision.events)
    if not isinstance(decision, Ending):
        return 0
    made = [decision.own, *(one.decision for one in decision.ended)]
    return sum(len(one.events) for one in made if isinstance(one, NewEvents))
