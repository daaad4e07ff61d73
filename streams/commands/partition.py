"""One partition of the command topic: chunks of commands in, one transaction per chunk out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, starmap
from typing import Generic, TypeVar
from uuid import UUID

import msgspec
from faust.types import TP
from msgspec.structs import replace

from models.errors import Fatal, Poison, Rejected, Transient
from models.messages import Command, Event, EventRecord, check_expected_version
from models.outcomes import Outcome
from models.wire import encode
from streams import metrics, tracing
from streams.aggregate import Aggregate, TopicNames
from streams.buses import CommandBus
from streams.commands import replies
from streams.commands.chunk_metrics import ChunkMetrics, label_names
from streams.commands.reader import CommandReader
from streams.commands.rebuild_state import rebuild_states
from streams.commands.repository import EventSourcedRepository
from streams.encryption.keys import PartitionKeys, master_keys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import dead_letter
from streams.kafka.partitioner import check_partition, partition_of
from streams.kafka.records import Record, reply_key, source_of
from streams.kafka.topic_ids import topic_id
from streams.kafka.transactions import OtherTopic, OutputRecord, TransactionalProducer
from streams.state.input_log import check_topic
from streams.state.recovery import recover_partition
from streams.state.snapshot import (
    Remembered,
    RememberedAcceptance,
    RememberedRejection,
)
from streams.state.store import encode_position, position_key
from streams.state.table import StateTable
from streams.state.version import StateVersion, has_to_rebuild
from streams.worker.app import StreamApp
from streams.worker.logs import log_defect

S = TypeVar("S")

# A handler returns the new events of the command's aggregate, which it has saved (staged) already.
DecisionBus = CommandBus[Sequence[Event]]

# Commands per group. Each step runs over a group, so that its code and data stay in the CPU's
# caches: one by one costs 25% more; building the batches at the end of the chunk costs 5% more.
_GROUP_SIZE = 64


class NewEvents(msgspec.Struct, frozen=True, gc=False):
    """The events of an accepted command, and what is remembered of it."""

    events: Sequence[Event]
    acceptance: RememberedAcceptance


# Result of deciding: new events, the remembered reply of a duplicate, or why there is neither.
Decision = NewEvents | Remembered | Rejected | Poison


@dataclass
class _Outputs:
    """Output records of a group of commands."""

    events: list[OutputRecord] = field(default_factory=list)
    outcomes: list[OutputRecord] = field(default_factory=list)
    dead: list[OutputRecord] = field(default_factory=list)


class CommandPartition(Generic[S]):
    """One partition of the command topic: decides its commands and commits the results.

    Commands are decided in order on staged copies of the state. All results of a chunk (events,
    outcomes, dead letters, state, keys, position) are written in one transaction. The state table
    changes only after its commit.
    """

    def __init__(
        self,
        app: StreamApp,
        aggregate: Aggregate[S],
        table: StateTable,
        new_bus: Callable[[EventSourcedRepository[S]], DecisionBus],
        tp: TP,
    ) -> None:
        self._settings = app.settings
        self._cluster = app.cluster
        self._aggregate = aggregate
        self._names = TopicNames.of(app.settings, aggregate.name)
        self._version = StateVersion.of(aggregate)
        self._reader = CommandReader(aggregate.commands)
        self._table = table
        self._new_bus = new_bus
        self._tp = tp
        self._master = master_keys(app.settings)
        self._encrypt = app.settings.encrypt_personal_data and aggregate.has_personal_data
        self._producer = TransactionalProducer(app.settings, app.conf.id, tp)
        self._label_names = label_names(aggregate)

    @property
    def is_waiting(self) -> bool:
        """Always False: what the broker does not do within a transaction's timeout has failed."""
        return False

    @property
    def restored(self) -> int:
        """Number of aggregates whose state it holds, roughly."""
        return self._stored.approximate_len()

    async def start(self) -> int:
        """Fence earlier owners, restore the state, and return the position that belongs to it.

        A state of an older version, or one that may be incomplete, is rebuilt first.

        Raises:
            Fatal: only a person can repair it, or a newer program made the state.
            Fenced: the partition has a newer owner.
        """
        self._drop_state()
        await self._producer.start()
        recovered = await recover_partition(self._settings, self._names, self._tp)
        self._stored = recovered.state
        self._table.owned[self._tp.partition] = recovered.state
        self._aggregates = metrics.STATE_AGGREGATES.labels(self._tp.topic, self._tp.partition)
        keys = PartitionKeys(self._master, recovered.keys)
        is_older = has_to_rebuild(self._tp, recovered.position, self._version)
        if is_older or recovered.is_incomplete:
            await rebuild_states(
                self._settings, self._aggregate, self._tp, recovered, keys, self._producer
            )
        self._sealer = PartitionSealer(keys, encrypt=self._encrypt)
        self._repository = EventSourcedRepository(self._aggregate, recovered.state, self._sealer)
        self._bus = self._new_bus(self._repository)
        self._position = replace(recovered.position, state=str(self._version))
        self._aggregates.set(self._stored.approximate_len())
        return recovered.position.offset

    async def check_log(self) -> None:
        """Check that the command topic is still the one that the position refers to.

        Raises:
            Fatal: it was deleted and created again.
            KafkaError: the broker does not know it at the moment.
        """
        check_topic(self._tp, self._position, await topic_id(self._settings, self._tp.topic))

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Decide a chunk and commit the results, if it is of the topic that the position is of.

        A topic that was deleted and created again may have other records at the position, and a
        worker that did not look meanwhile reads them as if they were the next ones.
        """
        new = self._producer.batches
        events, outcomes, dead = new(), new(), new()
        measured = ChunkMetrics(self._label_names)
        with tracing.step("decide"):
            for start in range(0, len(records), _GROUP_SIZE):
                if start:
                    await asyncio.sleep(0)  # lets the transactions of other partitions proceed
                outputs = await self._process_group(records[start : start + _GROUP_SIZE], measured)
                events.extend(outputs.events)
                outcomes.extend(outputs.outcomes)
                dead.extend(outputs.dead)
        changes = self._repository.staged()
        former, self._position = self._position, replace(self._position, offset=position)
        changes[position_key(self._tp)] = encode_position(self._position)
        measured.end_of("decide")
        try:
            with tracing.step("commit"):
                offsets = await self._producer.commit(
                    {
                        self._names.keys: new(self._sealer.changes()),
                        self._names.events: events,
                        self._names.outcomes: outcomes,
                        self._names.dead_commands: dead,
                        self._table.changelog: new(starmap(OutputRecord, changes.items())),
                    },
                    of_topic=former.topic_id,
                )
        except OtherTopic as error:
            check_topic(self._tp, former, str(error))
            raise
        measured.end_of("commit")
        self._apply(changes, offsets[self._table.changelog] + len(changes))
        measured.end_of("apply")
        measured.publish(records)
        self._aggregates.set(self._stored.approximate_len())

    async def close(self) -> None:
        """Give the partition up and drop its state; a local store keeps its files."""
        self._drop_state()
        await self._producer.close()

    def _drop_state(self) -> None:
        state = self._table.owned.pop(self._tp.partition, None)
        if state is not None:
            state.close()
            metrics.STATE_AGGREGATES.remove(self._tp.topic, self._tp.partition)

    def _apply(self, changes: Mapping[bytes, bytes], end: int) -> None:
        """Apply committed changes, which lie before `end` in the changelog, to the table."""
        self._stored.apply(changes, end)
        self._repository.clear()
        self._sealer.clear()

    async def _process_group(self, records: Sequence[Record], measured: ChunkMetrics) -> _Outputs:
        outputs = _Outputs()
        commands = [self._read(record) for record in records]
        decisions = [await self._decide(*read) for read in zip(records, commands, strict=True)]
        outcomes = [
            self._conclude(record, command, decision, outputs)
            for record, command, decision in zip(records, commands, decisions, strict=True)
        ]
        outputs.outcomes.extend(
            OutputRecord(reply_key(record), encode(outcome))
            for record, outcome in zip(records, outcomes, strict=True)
        )
        if tracing.is_enabled():
            _carry_contexts(records, decisions, outputs)
        decided = (one.events for one in decisions if isinstance(one, NewEvents))
        measured.add(commands, outcomes, chain.from_iterable(decided))
        return outputs

    def _read(self, record: Record) -> Command | Poison:
        """Return the command in a record; if reading it fails for any reason, the poison."""
        try:
            return self._reader.read(record)
        except Poison as poison:
            return poison.without_traceback()
        except Exception as error:
            log_defect("reading a command", error, record, offset=record.offset)
            return Poison("unreadable", f"reading it raised {type(error).__name__}")

    async def _decide(self, record: Record, command: Command | Poison) -> Decision:
        """Let the handler decide and stage the result; if it fails, take back what it staged.

        Raises:
            Transient, Fatal: the handler's, which say nothing about the command.
        """
        if isinstance(command, Poison):
            return command
        aggregate_id, id_ = command.aggregate_id, command.id.bytes
        try:
            snapshot = self._repository.get(aggregate_id)
            if snapshot.version == 0:
                # An aggregate that exists had this checked for its first command.
                check_partition(record, self._settings.partitions)
        except Poison as poison:
            return poison.without_traceback()
        first = snapshot.reply_to(id_)
        if first is not None:
            return first
        try:
            check_expected_version(command, snapshot.version)
            events = await self._bus.dispatch(command)
        except Rejected as rejected:
            self._repository.put(aggregate_id, snapshot)
            if snapshot.version > 0:
                self._repository.remember(
                    aggregate_id, RememberedRejection(id_, rejected.code, rejected.reason)
                )
            return rejected.without_traceback()
        except Poison as poison:  # the handler has loaded another aggregate, which is unreadable
            self._repository.put(aggregate_id, snapshot)
            return poison.without_traceback()
        except (Transient, Fatal):
            raise
        except Exception as error:
            self._repository.put(aggregate_id, snapshot)
            log_defect(
                f"deciding {type(command).__name__}",
                error,
                record,
                offset=record.offset,
                command=command.id,
            )
            return Poison("decide-failed", f"deciding it raised {type(error).__name__}")
        sequence = snapshot.version + len(events)
        acceptance = RememberedAcceptance(id_, sequence, len(events), record.offset, indexed=False)
        self._repository.remember(aggregate_id, acceptance)
        return NewEvents(events, acceptance)

    def _conclude(
        self, record: Record, command: Command | Poison, decision: Decision, outputs: _Outputs
    ) -> Outcome:
        """Return the outcome; add the events or the dead letter to the outputs."""
        if isinstance(decision, Poison):
            outputs.dead.append(
                self._sealer.seal_dead_letter(
                    dead_letter(record, decision),
                    keyed_elsewhere=self._is_keyed_elsewhere(record, decision),
                )
            )
            return replies.dead_lettered(record, decision)
        assert isinstance(command, Command)
        match decision:
            case NewEvents(acceptance=acceptance):
                ids = replies.event_ids_of(command, acceptance)
                self._add_events(record, command, decision, ids, outputs)
                return replies.accepted(record, command, acceptance.sequence, ids, self._cluster)
            case Rejected():
                return replies.rejected(record, command, decision)
            case RememberedAcceptance() | RememberedRejection():
                return replies.duplicate(record, command, decision, self._cluster)

    def _is_keyed_elsewhere(self, record: Record, poison: Poison) -> bool:
        """Whether the aggregate of a record may have a data key that is not in this partition.

        Its key is in the partition that it belongs to, or gone, if its state cannot be read.
        """
        return poison.code == "unreadable-state" or (
            record.key is not None
            and partition_of(record.key, self._settings.partitions) != record.partition
        )

    def _add_events(
        self,
        record: Record,
        command: Command,
        new: NewEvents,
        ids: Sequence[UUID],
        outputs: _Outputs,
    ) -> None:
        source = source_of(record)
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
    records: Sequence[Record], decisions: Sequence[Decision], outputs: _Outputs
) -> None:
    """Add the trace context of each command that has one to its outcome and its events."""
    end = 0
    for index, (record, decision) in enumerate(zip(records, decisions, strict=True)):
        start = end
        end += len(decision.events) if isinstance(decision, NewEvents) else 0
        headers = tracing.context_headers(record)
        if headers:
            outputs.outcomes[index] = replace(outputs.outcomes[index], headers=headers)
            for event in range(start, end):
                outputs.events[event] = replace(outputs.events[event], headers=headers)
